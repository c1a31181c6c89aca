"""The journal of a migration: append-only JSON lines, one fsync each, one writer (flock).

A line is on the disk before the act that it announces. A torn last line was never acted upon, so it does not count.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import platformdirs

from qemu_esd.errors import RefusedError
from qemu_esd.journal import codec, lines
from qemu_esd.journal.lines import HomeError, JournalError, NotBegunError
from qemu_esd.model.plan import Plan
from qemu_esd.model.record import Entered, Entry, Held, Planned, Released, State
from qemu_esd.model.resource import Resource


def home() -> Path:
    """The controller's own folder: journals and the list of known guests."""
    named = os.environ.get("QEMU_ESD_STATE")
    return Path(named) if named else Path(platformdirs.user_state_dir("qemu-esd"))


def room(name: str) -> Path:
    """A folder in it. Raises HomeError."""
    path = home() / name
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        hint = "see that you may write there, or name another place: QEMU_ESD_STATE"
        raise HomeError(f"{path} cannot be made: {error.strerror}", hint=hint) from error
    return path


@dataclass(frozen=True)
class Story:
    """What a journal tells: the plan, the last state, and what is held (oldest first)."""

    plan: Plan
    state: State
    held: tuple[Resource, ...]
    entries: tuple[Entry, ...]

    @property
    def is_broken_off(self) -> bool:
        """It is neither where it was to go nor back, if nobody works on it."""
        undecided = (State.PLANNED, State.PREPARING, State.SWITCHING, State.COMMITTED, State.RUNNING)
        return self.state in (*undecided, State.DISCARDING)


def tell(entries: tuple[Entry, ...]) -> Story:
    """Fold a journal's entries. Raises RecordError where the first is not the plan: nothing was begun."""
    match entries:
        case (Planned(plan), *_):
            pass
        case _:
            raise codec.RecordError("there is no plan at its beginning")
    state, held = State.PLANNED, list[Resource]()
    for entry in entries:
        match entry:
            case Entered(now):
                state = now
                if now is State.COMMITTED:
                    # What was made belongs to the running guest from here on: nothing is rolled back any more.
                    held.clear()
            case Held(resource) if resource not in held:
                held.append(resource)
            case Released(resource) if resource in held:
                held.remove(resource)
    return Story(plan, state, tuple(held), entries)


def _unwritten(what: str, error: OSError) -> JournalError:
    return JournalError(
        f"{what} cannot be written: {error.strerror}", hint=f"make room for {home()}, then: qemu-esd status"
    )


def write_file(path: Path, text: str) -> None:
    """Write a small file of the controller's own, whole or not at all. Raises JournalError."""
    fresh = path.with_suffix(".new")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise _unwritten(str(path), error) from error


def _write_whole(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class Journal:
    """An open journal; only the holder of its lock writes."""

    def __init__(self, stream: TextIO, entries: tuple[Entry, ...]) -> None:
        self._stream = stream
        self._entries = list(entries)
        self._former = max((path.lstat().st_mtime_ns for path in folder().glob("*.jsonl")), default=0)

    def append(self, entry: Entry) -> None:
        """Write one line and force it to the disk. Raises JournalError: then the line counts as never written."""
        descriptor, size = self._stream.fileno(), os.fstat(self._stream.fileno()).st_size
        try:
            _write_whole(descriptor, lines.write(entry))
            os.fsync(descriptor)
        except OSError as error:
            # A part of a line would spoil the next one.
            os.ftruncate(descriptor, size)
            raise _unwritten("the journal", error) from error
        self._entries.append(entry)
        self._stay_newest()

    def _stay_newest(self) -> None:
        """Journals are in the order of their last change: also where the clock was set back since another's."""
        descriptor = self._stream.fileno()
        if os.fstat(descriptor).st_mtime_ns <= self._former:
            os.utime(descriptor, ns=(self._former + 1, self._former + 1))

    @property
    def story(self) -> Story:
        """What it tells now. Raises RecordError for one that was never begun."""
        return tell(tuple(self._entries))


def folder() -> Path:
    """Where all journals are."""
    return room("migrations")


def path_of(id: str) -> Path:
    """Where the journal of a migration is, or would be."""
    return folder() / f"{id}.jsonl"


@contextmanager
def begin(plan: Plan) -> Iterator[Journal]:
    """A new journal whose first line is the plan. Raises RefusedError if it cannot be written: nothing was begun."""
    path = path_of(plan.id)
    with _locked(path, plan.id) as stream:
        journal = Journal(stream, ())
        try:
            journal.append(Planned(plan))
        except JournalError as error:
            path.unlink()
            raise RefusedError(error.what, hint=error.hint) from error
        yield journal


@contextmanager
def adopt(plan: Plan) -> Iterator[Journal]:
    """A journal of a migration that was begun elsewhere: there as a whole when the context ends, or not at all."""
    path = path_of(plan.id)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    try:
        with _locked(fresh, plan.id) as stream:
            journal = Journal(stream, ())
            journal.append(Planned(plan))
            yield journal
            fresh.rename(path)
            _sync_folder(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def reopen(id: str) -> Iterator[Journal]:
    """The journal of a migration that has begun. Raises RefusedError if it is unknown or somebody works on it."""
    path = path_of(id)
    if not path.exists():
        raise RefusedError(f"there is no migration {id}", hint="list them with: qemu-esd status")
    with _locked(path, id) as stream:
        entries, whole = lines.read(path)
        if os.fstat(stream.fileno()).st_size > whole:
            # What follows the last whole line was torn by a crash: cut it, so that the next line starts clean. Else
            # nothing is touched, not even the time: whoever only looks into an old journal leaves it an old one.
            os.truncate(path, whole)
        yield Journal(stream, entries)


@contextmanager
def _locked(path: Path, id: str) -> Iterator[TextIO]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        hint = f"see that you may write below {home()}"
        raise JournalError(f"the journal {path} cannot be opened: {error.strerror}", hint=hint) from error
    with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(
                f"another qemu-esd works on migration {id}", hint="wait for it, or see: qemu-esd status"
            ) from error
        _sync_folder(path.parent)
        yield stream


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(id: str) -> Story:
    """What the journal of `id` tells now, without a lock. Raises DamagedJournalError, FileNotFoundError."""
    path = path_of(id)
    entries, _ = lines.read(path)
    if not entries:
        what = f"the journal {path} is empty: its migration was never begun"
        raise NotBegunError(what, hint=f"nothing was touched: rm {path}")
    try:
        return tell(entries)
    except codec.RecordError as error:
        raise lines.damage(path, error.what) from error


def at_work(id: str) -> bool:
    """Whether some process of ours holds the journal of `id` open for writing."""
    try:
        with path_of(id).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
