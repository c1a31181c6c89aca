"""What to do with a migration that did not come to its end: from what is seen on both hosts to one verdict. Pure.

The table in `docs/recovery.md` is this function, and a test holds the one to the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from qemu_esd.model.record import State


class Source(StrEnum):
    """The source's QEMU, by its own word."""

    RUNS = "runs"  # it has the guest, running or paused, and sends it to nobody
    LEAVING = "leaving"  # it sends the guest, and can still take it back
    GAVE = "gave"  # it has given the guest away: `completed`, and stopped since
    GONE = "gone"
    UNKNOWN = "unknown"  # its host cannot be reached, or it hangs


class Target(StrEnum):
    """The target's QEMU, by its own word."""

    WAITS = "waits"  # for the rest of the guest
    LOADED = "loaded"  # has all of the guest, which has not run here yet, or is paused
    RAN = "ran"  # the guest runs here, or has run and stopped
    GONE = "gone"
    UNKNOWN = "unknown"  # likewise


@dataclass(frozen=True)
class Seen:
    """Both ends at one moment."""

    source: Source
    target: Target


class Wish(StrEnum):
    """What the user would like."""

    ON = "on"  # to the target
    BACK = "back"  # to the source
    DISCARD = "discard"  # the same, at the price of what the target has


class Verdict(StrEnum):
    """What is safe. Everything but REFUSE ends with the guest in exactly one place, or in none if it died by itself."""

    BACK = "back"  # undo all; the guest is, or becomes, the source's
    ON = "on"  # the guest is, or becomes, the target's
    RESTART = "restart"  # it is the target's, where its QEMU has ended: start it from its disks
    DISCARD = "discard"  # the target's disks are given up: start it on the source from its own, as of the switchover
    REFUSE = "refuse"  # nobody can tell now, or there are two: change nothing


def decide(state: State, seen: Seen, wish: Wish) -> Verdict:
    """The verdict for a migration that got as far as `state`."""
    if state is State.DISCARDED:
        return Verdict.REFUSE
    if state is State.DISCARDING:
        return _discarding(seen)
    if seen.source is Source.RUNS and seen.target is Target.RAN:
        return Verdict.REFUSE
    if not state.committed:
        return _before_commit(seen, wish)
    return _discard(state, seen) if wish is Wish.DISCARD else _after_commit(seen, wish)


def _before_commit(seen: Seen, wish: Wish) -> Verdict:
    """Nobody has told the target to run. Only a source that gave the guest away, or died, leaves a choice."""
    match seen:
        case Seen(Source.RUNS | Source.LEAVING, Target.RAN):
            return Verdict.REFUSE
        case Seen(Source.RUNS | Source.LEAVING, _):
            return Verdict.BACK
        case Seen(Source.GAVE | Source.GONE, Target.RAN):
            return Verdict.ON
        case Seen(Source.GAVE, Target.LOADED):
            return Verdict.ON if wish is Wish.ON else Verdict.BACK
        case Seen(Source.GONE, Target.LOADED):
            return Verdict.ON
        case Seen(Source.GAVE | Source.GONE, Target.WAITS | Target.GONE):
            return Verdict.BACK
        case _:
            return Verdict.REFUSE


def _after_commit(seen: Seen, wish: Wish) -> Verdict:
    """The target owns the guest, and nothing leads back but another migration."""
    match seen:
        case Seen(Source.RUNS, _) | Seen(_, Target.UNKNOWN):
            return Verdict.REFUSE
        case _ if wish is Wish.BACK:
            return Verdict.REFUSE
        case Seen(_, Target.LOADED | Target.RAN):
            return Verdict.ON
        case Seen(_, Target.GONE):
            return Verdict.RESTART
        case _:
            return Verdict.REFUSE


def _discard(state: State, seen: Seen) -> Verdict:
    """Only where nobody has the guest any more, and the source has its disks as they were."""
    match seen:
        case Seen(Source.GAVE | Source.GONE, Target.GONE) if state.leaves_source_whole:
            return Verdict.DISCARD
        case _:
            return Verdict.REFUSE


def _discarding(seen: Seen) -> Verdict:
    """It was decided, and whatever command comes next goes on with it: the source may run the guest by now."""
    match seen:
        case Seen(Source.RUNS | Source.GAVE | Source.GONE, Target.GONE):
            return Verdict.DISCARD
        case _:
            return Verdict.REFUSE


def adopted(seen: Seen, wish: Wish, *, arrived: bool) -> State | None:
    """How far a migration has come of which there is no journal. None: it may have been committed, or may not.

    `arrived`: the target's host has it in writing that the guest is there. Without that it counts as not committed,
    which is safe as long as nobody goes back from a target that may have run the guest: there is a moment between its
    start and that record.
    """
    if arrived:
        return State.COMMITTED
    match seen:
        case Seen(Source.GAVE | Source.GONE, Target.GONE):
            return None
        case Seen(Source.GAVE | Source.GONE | Source.UNKNOWN, Target.LOADED) if wish is not Wish.ON:
            return None
        case _:
            return State.SWITCHING
