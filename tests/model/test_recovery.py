"""The table of recovery: all of it, by the promises that it makes; and as docs/recovery.md prints it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pytest

from qemu_esd.model.record import State
from qemu_esd.model.recovery import Seen, Source, Target, Verdict, Wish, adopted, decide

ALL = list(product(State, (Seen(*pair) for pair in product(Source, Target)), Wish))
DOC = Path(__file__).parents[2] / "docs/recovery.md"


@pytest.mark.parametrize(("state", "seen", "wish"), ALL)
def test_what_must_always_hold(state: State, seen: Seen, wish: Wish) -> None:
    verdict = decide(state, seen, wish)
    if verdict is Verdict.BACK:
        # Never where the guest has run on the target, or may have.
        assert not state.committed
        assert seen.target is not Target.RAN
        assert seen.source is not Source.UNKNOWN
    if verdict is Verdict.ON:
        # Never a second copy, and only of a guest that is all there.
        assert seen.source not in (Source.RUNS, Source.LEAVING) or (state.committed and seen.source is Source.LEAVING)
        assert seen.target in (Target.LOADED, Target.RAN)
    if verdict is Verdict.RESTART:
        # From its disks only where nobody has its memory.
        assert state.committed
        assert (seen.target, seen.source is Source.RUNS) == (Target.GONE, False)
    if verdict is Verdict.DISCARD:
        # Never what somebody may still have, and only from images that are as they were left.
        assert seen.target is Target.GONE
        assert seen.source not in (Source.LEAVING, Source.UNKNOWN)
        assert state is State.DISCARDING or (wish is Wish.DISCARD and state.leaves_source_whole)
    if seen.source is Source.RUNS and seen.target is Target.RAN:
        assert verdict is Verdict.REFUSE
    if state is State.DISCARDING:
        # What has been given up is not taken up again: there may be a newer copy.
        assert verdict in (Verdict.DISCARD, Verdict.REFUSE)


@pytest.mark.parametrize(("state", "seen", "wish"), ALL)
def test_a_guest_that_is_somewhere_is_never_given_up(state: State, seen: Seen, wish: Wish) -> None:
    """Undoing ends the target's QEMU: never the only one that has the guest."""
    if seen.source is Source.GONE and seen.target in (Target.LOADED, Target.RAN):
        assert decide(state, seen, wish) is not Verdict.BACK


@pytest.mark.parametrize(("state", "seen", "wish"), ALL)
def test_without_a_journal_less_is_done_and_nothing_else(state: State, seen: Seen, wish: Wish) -> None:
    """Whatever `state` it really is in: what is concluded from what is seen leads to the same, or to a refusal.

    Going on with what was committed is all the same; it begins with the fence, which may be there already.
    """
    broken_off = (State.PREPARING, State.SWITCHING, State.COMMITTED, State.RUNNING)
    fenced = seen.source not in (Source.RUNS, Source.LEAVING) and seen.target is not Target.WAITS
    possible = fenced if state.committed else seen.target is not Target.RAN
    if state not in broken_off or not possible:
        return
    for arrived in (False, True) if state is State.RUNNING else (False,):
        supposed = adopted(seen, wish, arrived=arrived)
        if supposed is not None and (verdict := decide(supposed, seen, wish)) is not Verdict.REFUSE:
            assert verdict is decide(state, seen, wish) or (verdict, state.committed) == (Verdict.ON, True)


def test_the_page_prints_this_table() -> None:
    text = DOC.read_text(encoding="utf-8")
    printed = text.partition("<!-- table -->\n")[2].partition("<!-- end -->")[0]
    assert printed == table(), f"put this between the marks in {DOC.name}:\n{table()}"


BOTH = (Wish.ON, Wish.BACK)
HALVES = (
    ("Before the commit:", State.SWITCHING, BOTH),
    ("After the commit:", State.COMMITTED, BOTH),
    ("After the commit, `rollback --discard-target`:", State.COMMITTED, (Wish.DISCARD,)),
    ("From then on (`discarding`), any of them:", State.DISCARDING, tuple(Wish)),
)


def table() -> str:
    """All of it as Markdown: rows by the source, columns by the target, cells by what is wished."""
    return "\n".join(f"{title}\n\n{_half(state, wishes)}" for title, state, wishes in HALVES)


def _half(state: State, wishes: Iterable[Wish]) -> str:
    head = ["source \\ target", *Target]
    rows = [[source.value, *(_cell(state, Seen(source, target), wishes) for target in Target)] for source in Source]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(state: State, seen: Seen, wishes: Iterable[Wish]) -> str:
    """The verdict once where it is one."""
    return " / ".join(dict.fromkeys(decide(state, seen, wish) for wish in wishes))
