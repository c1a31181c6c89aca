"""Emptying a host: whatever guests and targets there are, nobody is forgotten or given more than there is."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.errors import RefusedError, RolledBackError, UnfinishedError, UsageError
from qemu_esd.model.evacuation import (
    Action,
    Chance,
    Evacuated,
    Evacuation,
    Outcome,
    Room,
    Seen,
    Step,
    Tried,
    Whereabouts,
    assign,
    fate,
)
from qemu_esd.model.plan import Problem
from qemu_esd.model.policy import Handler

ORDER = Evacuation("a", ("b", "c"))
BAD = Problem("a", "it has a floppy disk", "take it out")

targets = st.sampled_from(["b", "c", "d"])
mounts = st.sampled_from(["/", "/var"])
sizes = st.integers(0, 100)
rooms = st.fixed_dictionaries(
    {name: st.builds(Room, sizes, st.dictionaries(mounts, sizes, max_size=2)) for name in ("b", "c", "d")}
)
chances = st.builds(Chance, targets, st.sampled_from([(), (), (BAD,)]), mounts, sizes)
guests = st.lists(
    st.builds(
        Tried,
        st.text("vm", min_size=1, max_size=4),
        st.lists(chances, max_size=3, unique_by=lambda chance: chance.target).map(tuple),
        sizes,
    ),
    max_size=6,
    unique_by=lambda guest: guest.vm,
)


@given(guests, rooms)
def test_nobody_is_forgotten_and_nobody_is_given_what_is_not_there(tried: list[Tried], has: dict[str, Room]) -> None:
    steps = assign(tried, has)
    assert [step.vm for step in steps] == sorted(guest.vm for guest in tried)
    memory, space = defaultdict[str, int](int), defaultdict[tuple[str, str], int](int)
    by_name = {guest.vm: guest for guest in tried}
    for step in steps:
        if step.action is Action.MOVE:
            assert step.host is not None
            (chance,) = (each for each in by_name[step.vm].chances if each.target == step.host)
            assert not chance.problems
            memory[step.host] += by_name[step.vm].memory
            space[step.host, chance.file_system] += chance.space
    assert all(taken <= has[host].memory for host, taken in memory.items())
    assert all(taken <= has[host].space.get(mount, 0) for (host, mount), taken in space.items())


@given(guests, rooms)
def test_who_is_refused_is_told_why(tried: list[Tried], has: dict[str, Room]) -> None:
    by_name = {guest.vm: guest for guest in tried}
    for step in assign(tried, has):
        if step.action is Action.REFUSED:
            assert bool(step.problems) == bool(by_name[step.vm].chances)
            assert len(set(step.problems)) == len(step.problems)


@given(guests, rooms)
def test_one_alone_is_refused_only_where_it_does_not_fit(tried: list[Tried], has: dict[str, Room]) -> None:
    for guest in tried:
        (step,) = assign([guest], has)
        fits = [
            chance.target
            for chance in guest.chances
            if not chance.problems
            and guest.memory <= has[chance.target].memory
            and chance.space <= has[chance.target].space.get(chance.file_system, 0)
        ]
        assert (step.action is Action.MOVE) == bool(fits)
        assert not fits or has[step.host or ""].memory == max(has[target].memory for target in fits)


def both(space: int = 1) -> tuple[Chance, ...]:
    return (Chance("b", (), "/", space), Chance("c", (), "/", space))


def test_the_largest_chooses_first_and_the_emptiest_is_chosen() -> None:
    has = {"b": Room(10, {"/": 9}), "c": Room(12, {"/": 9})}
    steps = assign([Tried("a-small", both(), 3), Tried("z-large", both(), 8)], has)
    assert {step.vm: step.host for step in steps} == {"a-small": "b", "z-large": "c"}
    even = assign([Tried("one", both(), 5)], {"b": Room(10, {"/": 9}), "c": Room(10, {"/": 9})})
    assert even[0].host == "b"


def test_no_room_is_told_with_what_is_left() -> None:
    has = {"b": Room(10 << 20, {"/": 4 << 20})}
    chance = (Chance("b", (), "/", 3 << 20),)
    one, two = assign([Tried("one", chance, 6 << 20), Tried("two", chance, 5 << 20)], has)
    assert (one.action, two.action) == (Action.MOVE, Action.REFUSED)
    assert [problem.what for problem in two.problems] == [
        "two may take 3.0 MiB of space, and 1.0 MiB are left by the others",
        "two may take 5.0 MiB of memory, and 4.0 MiB are left by the others",
    ]
    assert all("--overcommit" in problem.hint for problem in two.problems)
    one, two = assign([Tried("one", chance, 6 << 20), Tried("two", chance, 5 << 20)], has, overcommit=True)
    assert [problem.what for problem in two.problems] == [
        "two may take 3.0 MiB of space, and 1.0 MiB are left by the others"
    ]
    assert "--overcommit" not in two.problems[0].hint


def test_memory_that_is_overcommitted_is_spread_all_the_same() -> None:
    has = {"b": Room(10, {"/": 9}), "c": Room(9, {"/": 9})}
    steps = assign([Tried("one", both(), 20), Tried("two", both(), 20)], has, overcommit=True)
    assert [step.host for step in steps] == ["b", "c"]


def test_what_is_wrong_with_the_guest_is_told_once() -> None:
    tried = Tried("one", (Chance("b", (BAD,)), Chance("c", (BAD,))))
    (step,) = assign([tried], {})
    assert step.problems == (BAD,)


MOVE = Step("vm", Action.MOVE, "b")
FAILED, HALFWAY = RolledBackError("it broke"), UnfinishedError("it hangs", hint="qemu-esd resume 1")


@pytest.mark.parametrize(
    ("step", "error", "runs", "serves", "state", "host", "next_step"),
    [
        (MOVE, None, False, None, Whereabouts.SETTLED, "b", "qemu-esd release vm"),
        (MOVE, None, False, "b", Whereabouts.NEEDS_HOST, "b", "qemu-esd settle vm"),
        (MOVE, FAILED, True, None, Whereabouts.STAYS, "a", None),
        (MOVE, HALFWAY, True, "b", Whereabouts.NEEDS_HOST, "b", "qemu-esd resume 1"),
        (MOVE, HALFWAY, False, "b", Whereabouts.NEEDS_HOST, "b", "qemu-esd resume 1"),
        (MOVE, RefusedError("it has ended"), False, None, Whereabouts.GONE, None, None),
        (Step("vm", Action.REFUSED, problems=(BAD,)), None, True, None, Whereabouts.STAYS, "a", "take it out"),
        (Step("vm", Action.SETTLE, "c"), FAILED, False, "b", Whereabouts.NEEDS_HOST, "c", "qemu-esd settle vm"),
        (None, None, True, None, Whereabouts.STAYS, "a", None),
        (None, None, False, "b", Whereabouts.NEEDS_HOST, "b", "qemu-esd settle vm"),
    ],
)
def test_what_became_of_a_guest(
    step: Step | None,
    error: Exception | None,
    runs: bool,
    serves: str | None,
    state: Whereabouts,
    host: str | None,
    next_step: str | None,
) -> None:
    told = fate(ORDER, Seen("vm", step, Outcome(error), runs, serves))  # type: ignore[arg-type]
    assert (told.state, told.host, told.next) == (state, host, next_step)
    assert (told.problem is None) == (error is None and state is not Whereabouts.STAYS)


def test_a_release_that_was_asked_for_is_told() -> None:
    order = Evacuation("a", ("b",), release=True)
    done = fate(order, Seen("vm", MOVE, Outcome(), False, None))
    assert (done.state, done.next) == (Whereabouts.RELEASED, None)
    late = fate(order, Seen("vm", Step("vm", Action.RELEASE, "b"), Outcome(FAILED), False, None))
    assert (late.state, late.next) == (Whereabouts.SETTLED, "qemu-esd release vm")


def ended(*seen: Seen, devices: tuple[str, ...] = ()) -> int:
    guests = tuple(fate(ORDER, each) for each in seen)
    free = not (devices or any(each.runs or each.serves for each in seen))
    return Evacuated("a", free, guests, devices).exit_status


def test_the_exit_status_tells_what_is_left() -> None:
    settled = Seen("one", MOVE, Outcome(), False, None)
    needs, stays = Seen("two", MOVE, Outcome(), False, "b"), Seen("three", MOVE, Outcome(FAILED), True, None)
    assert ended() == ended(settled) == 0
    assert ended(settled, needs) == ended(Seen("one", MOVE, Outcome(HALFWAY), False, None)) == 4
    assert ended(settled, needs, stays) == ended(stays) == ended(settled, devices=("suid",)) == 1


@pytest.mark.parametrize("policy", [Handler.ON_DEMAND, Handler.REDIRECT])
def test_wrong_words(policy: Handler) -> None:
    with pytest.raises(UsageError, match="no host is named"):
        Evacuation("a", ())
    with pytest.raises(UsageError, match="take its guests"):
        Evacuation("a", ("b", "a"))
    with pytest.raises(UsageError, match="goes on needing a"):
        Evacuation("a", ("b",), policy, release=True)
    with pytest.raises(UsageError, match="whole path"):
        Evacuation("a", ("b",), overlay_folder="disks")
