"""What comes after the switchover: another policy, what is still elsewhere, the end of what hosts keep."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from qemu_esd import log, mover_process, view
from qemu_esd.api.desk import open_guest
from qemu_esd.books import keeping, note, open_journal, subject_of
from qemu_esd.errors import EsdError, RefusedError, UnfinishedError, UsageError
from qemu_esd.model.disk import link_of
from qemu_esd.model.policy import Handler
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import DiskRecord, State
from qemu_esd.phases import policy, release, settle
from qemu_esd.phases.context import Event, Reporter
from qemu_esd.phases.station import Station


async def settle_guest(vm: str, host: str | None, on_bytes: settle.OnBytes) -> view.GuestView:
    """Bring over what is left, prove it, cut the link. Settled already is fine."""

    def report(event: Event) -> None:
        if isinstance(event, Progress):
            on_bytes(event.what, event.done, event.total)

    async with mover_process.taken_over(vm), open_guest(vm, host) as station:
        if not station.record.upstream:
            return await view.of_station(station)
        with log.bound(host=station.host.name), open_journal(station.record) as journal:
            async with keeping(journal, subject_of(station), report) as books:
                with going_on(vm, station.host.name, ()):
                    books.enter(State.SETTLING)
                    station = await settle.settle(station, books.on_bytes)
                    books.enter(State.SETTLED)
                    await books.recorder.at_the_end(station)
                    return await view.of_station(station)


async def follow_policy(vm: str, report: Reporter, *, release_then: bool = False) -> view.GuestView:
    """Bring over what the policy moves by itself, and nothing else: what a detached `migrate` has left to do.

    With `release_then` former sources forget the guest, if nothing of it needs them any more.
    """
    async with open_guest(vm) as station:
        if not station.record.upstream:
            return await view.of_station(station)
        with log.bound(host=station.host.name), open_journal(station.record) as journal:
            async with keeping(journal, subject_of(station), report) as books:
                with going_on(vm, station.host.name, (disk.handler for disk in station.linked())):
                    station = await books.recorder.finish(station, books.enter, books.report)
                    await books.recorder.at_the_end(station)
                    if release_then and not station.record.upstream:
                        station = await release.release(station)
                        books.enter(State.RELEASED)
                    return await view.of_station(station)


@contextmanager
def going_on(vm: str, host: str, handlers: Iterable[Handler | None]) -> Iterator[None]:
    """After the commit nothing is rolled back: whatever fails, it is unfinished, and can be gone on with."""
    try:
        yield
    except (UnfinishedError, UsageError):
        raise
    except EsdError as error:
        what = f"{vm} runs on {host}, but its data could not all be brought there: {error}"
        raise UnfinishedError(what, hint=command_to_go_on(vm, handlers)) from error


def command_to_go_on(vm: str, handlers: Iterable[Handler | None]) -> str:
    """The words that bring over what the policy moves by itself: all of it, where nothing else is linked."""
    others = {Handler.ON_DEMAND, Handler.REDIRECT} & set(handlers)
    return f"qemu-esd settle {'--background-only ' if others else ''}{shlex.quote(vm)}"


async def release_guest(vm: str, host: str | None = None) -> view.GuestView:
    """Let former sources forget the guest."""
    async with mover_process.taken_over(vm), open_guest(vm, host) as station:
        with open_journal(station.record) as journal:
            station = await release.release(station)
            note(journal, State.RELEASED)
            return await view.of_station(station)


async def change_policy(vm: str, disk: str | None, handler: Handler, host: str | None = None) -> view.GuestView:
    """Another handler for one disk, or for all that still miss something. A background move goes on by itself."""
    async with mover_process.taken_over(vm) as mover:
        async with open_guest(vm, host) as station:
            for row in _chosen(station, disk):
                station = await policy.change(station, row, handler)
            seen, record = await view.of_station(station), station.record
    if record.migration and any(row.handler is Handler.BACKGROUND and link_of(row.chain) for row in record.disks):
        mover_process.start(vm, record.migration, release=bool(mover and mover.release))
    return seen


def _chosen(station: Station, disk: str | None) -> tuple[DiskRecord, ...]:
    """The disks that are meant: one by its name, else all whose data is partly elsewhere."""
    name = station.record.name
    if disk is not None and not any(disk in (each.id, each.suid) for each in station.guest.disks):
        known = ", ".join(each.id for each in station.guest.disks)
        raise UsageError(f"{name} has no disk {disk!r}", hint=f"its disks are {known or 'none'}")
    rows = tuple(row for row in station.linked() if disk in (None, row.id, row.suid))
    if not rows:
        what = f"all of {disk or name} is where the guest runs, and no policy is needed"
        raise RefusedError(what, host=station.host.name, hint=f"qemu-esd status {shlex.quote(name)}")
    return rows
