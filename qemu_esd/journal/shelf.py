"""All journals of this controller: the newest of a guest, those that were broken off, those that are damaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from qemu_esd.errors import RefusedError
from qemu_esd.journal import lines, store
from qemu_esd.journal.lines import DamagedJournalError, JournalError, NotBegunError
from qemu_esd.journal.store import Story
from qemu_esd.model.record import Measured, Planned


def all_ids() -> tuple[str, ...]:
    """The migrations that have a journal here, oldest first."""
    paths = sorted(store.folder().glob("*.jsonl"), key=lambda path: path.lstat().st_mtime_ns)
    return tuple(path.stem for path in paths)


def find(word: str) -> Story:
    """The migration of that id, or the newest one of the guest of that name. Raises RefusedError if there is none."""
    known = word in all_ids()
    story = store.read(word) if known else newest_of(word)
    if story is None:
        what = f"no migration {word}, and none of a guest {word}, was begun here"
        raise RefusedError(what, hint="list the guests with: qemu-esd status")
    return story


def unfinished() -> tuple[Story, ...]:
    """The migrations begun here that were broken off, oldest first: nobody works on them, and they are undecided."""
    found = []
    for id in all_ids():
        with suppress(DamagedJournalError, FileNotFoundError):
            story = store.read(id)
            if story.is_broken_off and not store.at_work(id):
                found.append(story)
    return tuple(found)


def newest_of(vm: str) -> Story | None:
    """The latest migration of a guest that was begun here. One that cannot be read is nobody's if its plan cannot.

    Raises DamagedJournalError for one that is this guest's.
    """
    for id in reversed(all_ids()):
        try:
            story = store.read(id)
        except FileNotFoundError:
            continue
        except DamagedJournalError:
            if _owner(id) == vm:
                raise
            continue
        if story.plan.vm == vm:
            return story
    return None


@dataclass(frozen=True)
class Shelf:
    """All journals here, each read once. `newest`: by guest, or why its newest one cannot be read.

    `damaged` are those that cannot be read; one that a crash left before its first line is fine.
    """

    newest: Mapping[str, Story | DamagedJournalError]
    damaged: tuple[DamagedJournalError, ...]


def read_all() -> Shelf:
    newest = dict[str | None, Story | DamagedJournalError]()
    damaged = list[DamagedJournalError]()
    for id in all_ids():
        try:
            story = store.read(id)
        except FileNotFoundError:
            continue
        except DamagedJournalError as error:
            newest[_owner(id)] = error
            if not isinstance(error, NotBegunError):
                damaged.append(error)
        else:
            newest[story.plan.vm] = story
    return Shelf({vm: told for vm, told in newest.items() if vm is not None}, tuple(damaged))


def stories() -> Iterator[Story]:
    """All migrations here whose journals can be read, oldest first."""
    for id in all_ids():
        with suppress(OSError, JournalError):
            yield store.read(id)


def figures(name: str) -> tuple[float, ...]:
    """What all migrations here have measured under that name, in ms."""
    entries = (entry for story in stories() for entry in story.entries)
    return tuple(entry.ms for entry in entries if isinstance(entry, Measured) and entry.name == name)


def _owner(id: str) -> str | None:
    """The guest that a damaged journal tells of, if its first line can still be read."""
    first = lines.read_first(store.path_of(id))
    return first.plan.vm if isinstance(first, Planned) else None
