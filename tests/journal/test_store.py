"""The journal: what it tells, that one process writes, and that a torn end counts for nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.errors import EsdError, RefusedError
from qemu_esd.journal import shelf, store
from qemu_esd.journal.codec import RecordError
from qemu_esd.journal.lines import DamagedJournalError
from qemu_esd.model.record import Entered, Entry, Held, Measured, Planned, Released, State
from qemu_esd.model.resource import File, Folder, Unit
from tests.support.samples import plan

PLAN = plan()
FOLDER, UNIT, OVERLAY = Folder("a", "/run/x"), Unit("a", "path-1"), File("b", "/disks/x")


def story(*entries: Entry) -> store.Story:
    return store.tell((Planned(PLAN), *entries))


# ---- what entries tell


def test_a_plan_alone_is_planned_and_holds_nothing() -> None:
    assert story() == store.Story(PLAN, State.PLANNED, (), (Planned(PLAN),))


def test_the_state_is_the_last_that_was_entered() -> None:
    told = story(Entered(State.PREPARING), Measured("downtime", 3.0), Entered(State.SWITCHING), Held(UNIT))
    assert told.state is State.SWITCHING


def test_held_things_are_told_oldest_first_until_they_are_released() -> None:
    assert story(Held(FOLDER), Held(UNIT), Held(OVERLAY)).held == (FOLDER, UNIT, OVERLAY)
    assert story(Held(FOLDER), Held(UNIT), Held(OVERLAY), Released(UNIT)).held == (FOLDER, OVERLAY)


def test_to_hold_twice_is_to_hold_once() -> None:
    """A phase that is gone through again after a crash writes its intents again."""
    assert story(Held(FOLDER), Held(UNIT), Held(FOLDER)).held == (FOLDER, UNIT)
    assert story(Held(FOLDER), Held(FOLDER), Released(FOLDER)).held == ()


def test_to_release_what_is_not_held_is_nothing() -> None:
    assert story(Released(FOLDER), Held(UNIT), Released(FOLDER)).held == (UNIT,)


def test_what_was_released_can_be_held_again() -> None:
    assert story(Held(FOLDER), Released(FOLDER), Held(FOLDER)).held == (FOLDER,)


def test_the_commit_hands_over_what_was_made_before_it() -> None:
    """A roll-back after the commit would take the guest's disks away from under it."""
    told = story(Held(FOLDER), Held(OVERLAY), Entered(State.COMMITTED), Held(UNIT))
    assert (told.held, told.state) == ((UNIT,), State.COMMITTED)


@pytest.mark.parametrize("state", [state for state in State if state is not State.COMMITTED])
def test_no_other_state_lets_go(state: State) -> None:
    assert story(Held(FOLDER), Entered(state)).held == (FOLDER,)


resources = st.sampled_from([FOLDER, UNIT, OVERLAY])


@given(st.lists(st.tuples(st.sampled_from([Held, Released]), resources)))
def test_held_is_what_was_held_last_and_not_released_since(steps: list[tuple[type, File]]) -> None:
    told = story(*(kind(resource) for kind, resource in steps)).held
    assert len(set(told)) == len(told)
    last = {resource: kind for kind, resource in steps}
    assert set(told) == {resource for resource, kind in last.items() if kind is Held}


@pytest.mark.parametrize("entries", [(), (Entered(State.PREPARING),), (Held(FOLDER), Planned(PLAN))])
def test_a_journal_without_a_plan_tells_nothing(entries: tuple[Entry, ...]) -> None:
    with pytest.raises(RecordError, match="no plan"):
        store.tell(entries)


# ---- the file


def write(*entries: Entry) -> bytes:
    """The bytes of a journal with these entries after the plan."""
    with store.begin(PLAN) as journal:
        for entry in entries:
            journal.append(entry)
    return store.path_of(PLAN.id).read_bytes()


def test_what_is_written_is_read_by_everybody_at_once() -> None:
    with store.begin(PLAN) as journal:
        for entry in (Entered(State.PREPARING), Held(FOLDER)):
            journal.append(entry)
            assert store.read(PLAN.id) == journal.story
        assert journal.story.held == (FOLDER,)


def test_a_reopened_journal_goes_on_where_it_ended() -> None:
    write(Held(FOLDER))
    with store.reopen(PLAN.id) as journal:
        assert journal.story == story(Held(FOLDER))
        journal.append(Released(FOLDER))
    assert store.read(PLAN.id) == story(Held(FOLDER), Released(FOLDER))


def test_a_line_is_on_the_disk_when_append_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fsync(2) was asked to make safe last holds the new line, whole."""
    safe: list[bytes] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            safe.append(store.path_of(PLAN.id).read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    with store.begin(PLAN) as journal:
        for number in range(3):
            journal.append(Held(File("a", f"/{number}")))
            assert len(safe) == number + 2
            assert safe[-1] == store.path_of(PLAN.id).read_bytes()
            assert f"/{number}".encode() in safe[-1].splitlines()[-1]


def test_the_name_of_the_journal_is_on_the_disk_before_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write()
    path = store.path_of(PLAN.id)
    assert synced == [str(path.parent), str(path)]


def test_nobody_else_can_read_it(home: Path) -> None:
    write()
    path = store.path_of(PLAN.id)
    assert path.is_relative_to(home)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]


@pytest.mark.parametrize("torn", [b"{", b'{"time": 1, "entry"', b"\0\0\0", "é".encode()[:1]])
def test_a_torn_end_is_ignored_and_cut(torn: bytes) -> None:
    whole = write(Held(FOLDER))
    path = store.path_of(PLAN.id)
    path.write_bytes(whole + torn)
    assert store.read(PLAN.id) == story(Held(FOLDER))
    with store.reopen(PLAN.id) as journal:
        assert path.read_bytes() == whole
        journal.append(Held(UNIT))
    assert store.read(PLAN.id) == story(Held(FOLDER), Held(UNIT))


def test_wherever_a_crash_cuts_the_whole_lines_before_it_count() -> None:
    entries = (Planned(PLAN), Entered(State.PREPARING), Held(FOLDER), Released(FOLDER))
    whole = write(*entries[1:])
    path = store.path_of(PLAN.id)
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole) + 1):
        path.write_bytes(whole[:cut])
        assert store.read(PLAN.id).entries == entries[: whole[:cut].count(b"\n")]


@pytest.mark.parametrize("rest", [b"", b'{"time": 1'])
def test_a_crash_before_the_first_line_leaves_a_journal_that_says_so(rest: bytes) -> None:
    write()
    store.path_of(PLAN.id).write_bytes(rest)
    with pytest.raises(DamagedJournalError, match="never begun"):
        store.read(PLAN.id)
    assert shelf.read_all().damaged == ()
    with store.reopen(PLAN.id) as journal:
        with pytest.raises(RecordError, match="no plan"):
            _ = journal.story
    assert shelf.newest_of(PLAN.vm) is None


@pytest.mark.parametrize(
    "line",
    [b"rubbish\n", b"[]\n", b"null\n", b'{"time": 1}\n', b'{"time": 1, "entry": {"kind": "Later"}}\n', b"\xff\n"],
)
def test_a_damaged_line_in_the_middle_is_refused(line: bytes) -> None:
    """It was acted upon, so nobody may go on as if it were not there."""
    whole = write(Held(FOLDER))
    damaged = whole + line + whole.splitlines(keepends=True)[-1]
    store.path_of(PLAN.id).write_bytes(damaged)
    with pytest.raises(DamagedJournalError, match="line 3: "):
        store.read(PLAN.id)
    with pytest.raises(DamagedJournalError):
        with store.reopen(PLAN.id):
            pass
    assert store.path_of(PLAN.id).read_bytes() == damaged


# ---- one writer


def test_a_second_writer_is_refused_until_the_first_is_done() -> None:
    with store.begin(PLAN) as journal:
        with pytest.raises(RefusedError, match=f"another qemu-esd works on migration {PLAN.id}"):
            with store.reopen(PLAN.id):
                pass
        journal.append(Held(FOLDER))
    with store.reopen(PLAN.id) as journal:
        assert journal.story.held == (FOLDER,)
        with pytest.raises(RefusedError, match="another qemu-esd works"):
            with store.reopen(PLAN.id):
                pass


def test_who_works_on_it_is_seen_without_standing_in_the_way() -> None:
    assert not store.at_work(PLAN.id)
    with store.begin(PLAN):
        assert store.at_work(PLAN.id)
    assert not store.at_work(PLAN.id)
    with store.reopen(PLAN.id):
        assert store.at_work(PLAN.id)


def test_who_only_looks_into_an_old_journal_leaves_it_old() -> None:
    """Journals are in the order of their last change."""
    with store.begin(PLAN):
        pass
    os.utime(store.path_of(PLAN.id), (1, 1))
    with store.reopen(PLAN.id):
        pass
    assert store.path_of(PLAN.id).stat().st_mtime == 1


def test_an_unknown_migration_is_refused() -> None:
    with pytest.raises(RefusedError, match="there is no migration 12345678"):
        with store.reopen("12345678"):
            pass
    assert not store.path_of("12345678").exists()


def test_without_a_word_from_the_user_the_folder_is_that_of_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QEMU_ESD_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert store.home() == Path("/xdg/qemu-esd")


def test_a_journal_of_somebody_else_s_migration_is_there_as_a_whole_or_not_at_all() -> None:
    with pytest.raises(EsdError, match="no way"):
        with store.adopt(PLAN) as journal:
            journal.append(Entered(State.SWITCHING))
            raise EsdError("no way")
    assert shelf.all_ids() == ()
    with store.adopt(PLAN) as journal:
        journal.append(Entered(State.SWITCHING))
        assert shelf.all_ids() == ()
    assert store.read(PLAN.id).state is State.SWITCHING
    assert [path.name for path in store.path_of(PLAN.id).parent.iterdir()] == [f"{PLAN.id}.jsonl"]
