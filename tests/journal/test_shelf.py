"""All journals: their order, the newest of a guest, and what damaged ones tell."""

from __future__ import annotations

import os
import time

import pytest

from qemu_esd.journal import shelf, store
from qemu_esd.journal.lines import DamagedJournalError
from qemu_esd.model.record import Entered, State
from tests.support.samples import plan


def begin(id: str, vm: str, age: int) -> None:
    with store.begin(plan(id, vm)):
        pass
    os.utime(store.path_of(id), (age, age))


def test_journals_are_listed_oldest_first() -> None:
    assert shelf.all_ids() == ()
    for id, age in (("b", 2), ("c", 3), ("a", 1)):
        begin(id, "vm", age)
    assert shelf.all_ids() == ("a", "b", "c")


def test_the_newest_migration_of_a_guest() -> None:
    for id, vm, age in (("a", "one", 1), ("b", "one", 2), ("c", "other", 3)):
        begin(id, vm, age)
    newest = shelf.newest_of("one")
    assert newest is not None
    assert newest.plan.id == "b"
    assert shelf.newest_of("third") is None


def test_the_order_does_not_depend_on_the_clock() -> None:
    """It was set back between two migrations, by an hour: the later one counts, and it alone was broken off."""
    begin("a", "one", round(time.time()) + 3600)
    for id in ("b", "c"):
        with store.begin(plan(id, "one")) as journal:
            journal.append(Entered(State.PREPARING))
    assert shelf.all_ids() == ("a", "b", "c")
    with store.reopen("b") as journal:
        journal.append(Entered(State.ROLLED_BACK))
    assert shelf.all_ids() == ("a", "c", "b")


def test_a_journal_whose_plan_cannot_be_read_is_nobodys() -> None:
    begin("a", "one", 1)
    begin("b", "one", 2)
    store.path_of("b").write_bytes(b"rubbish\n")
    newest = shelf.newest_of("one")
    assert newest is not None
    assert newest.plan.id == "a"
    assert len(shelf.read_all().damaged) == 1


def test_a_damaged_journal_is_that_of_the_guest_in_its_plan() -> None:
    begin("a", "one", 1)
    begin("b", "one", 2)
    begin("c", "other", 3)
    store.path_of("b").write_bytes(store.path_of("b").read_bytes() + b"rubbish\n")
    os.utime(store.path_of("b"), (2, 2))
    with pytest.raises(DamagedJournalError, match=r"b\.jsonl cannot be read: line 2: "):
        shelf.newest_of("one")
    assert shelf.newest_of("other") == store.read("c")
    assert [story.plan.id for story in shelf.unfinished()] == ["a", "c"]


def test_all_that_journals_tell_is_what_each_tells() -> None:
    """Of each guest the newest one, a damaged one too, and what nobody owns is only damaged."""
    begin("a", "one", 1)
    begin("b", "one", 2)
    begin("c", "other", 3)
    begin("d", "other", 4)
    begin("e", "third", 5)
    store.path_of("d").write_bytes(store.path_of("d").read_bytes() + b"rubbish\n")
    store.path_of("e").write_bytes(b"rubbish\n")
    os.utime(store.path_of("d"), (4, 4))
    journals = shelf.read_all()
    assert set(journals.newest) == {"one", "other"}
    assert journals.newest["one"] == shelf.newest_of("one") == store.read("b")
    with pytest.raises(DamagedJournalError, match=r"d\.jsonl cannot be read: line 2: "):
        raise journals.newest["other"]  # type: ignore[misc]
    assert [error.what.split("/")[-1][:7] for error in journals.damaged] == ["d.jsonl", "e.jsonl"]
