"""What is kept of a migration while a command of ours works on it: journal, trail, log lines; and who is told of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from qemu_esd import hooks, log
from qemu_esd.journal import store
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Entered, GuestRecord, State
from qemu_esd.phases.context import Reporter
from qemu_esd.phases.station import Station
from qemu_esd.recording import Recorder, remembering


@dataclass(frozen=True)
class Books:
    """Of one migration. `journal` is None where another controller has it; `report` goes to all who listen."""

    journal: store.Journal | None
    recorder: Recorder
    report: Reporter

    def enter(self, state: State) -> None:
        """Write down that the migration enters `state`, where we have its journal, and tell of it."""
        note(self.journal, state)
        log.rebind(phase=state.value)
        self.report(state)

    def on_bytes(self, disk: str, done: int, total: int) -> None:
        self.report(Progress(disk, done, total))


@asynccontextmanager
async def keeping(journal: store.Journal | None, subject: hooks.Subject, report: Reporter) -> AsyncIterator[Books]:
    """While this is open, warnings are remembered; the error that it ends with is remembered, and hooks are told."""
    with remembering(subject.migration if journal else None) as recorder:
        with log.bound(migration=subject.migration, vm=subject.vm):
            async with hooks.telling(subject, report) as telling:
                yield Books(journal, recorder, recorder.hearing(telling))


@contextmanager
def open_journal(record: GuestRecord) -> Iterator[store.Journal | None]:
    """The journal of a guest's last migration; None where another controller has it, or it has never moved.

    Raises RefusedError while somebody works on it.
    """
    if record.migration is None or not store.path_of(record.migration).exists():
        yield None
        return
    with store.reopen(record.migration) as journal:
        yield journal


def note(journal: store.Journal | None, state: State) -> None:
    if journal is not None:
        journal.append(Entered(state))


def subject_of(station: Station) -> hooks.Subject:
    """The last migration of a guest, as the guest's own record tells it."""
    record = station.record
    source = record.upstream[0].host if record.upstream else None
    return hooks.Subject(record.migration, record.name, source, station.host.name)
