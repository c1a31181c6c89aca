"""Emptying a host: what is asked, which guest goes where, and what came of it. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from qemu_esd.errors import EsdError, RolledBackError, UnfinishedError, UsageError
from qemu_esd.model.pace import Bandwidth
from qemu_esd.model.plan import Problem, Transport
from qemu_esd.model.policy import Handler
from qemu_esd.model.request import DEFAULT_PORTS, Request
from qemu_esd.units import human_bytes


@dataclass(frozen=True)
class Evacuation:
    """The words of one `evacuate`: all guests of `source` are to run on `targets`. The others are as in a Request.

    `overcommit`: no room is kept for guests that fill their memory and disks. `skip_refused`: guests that cannot move
    stay, instead of all of them.
    """

    source: str
    targets: tuple[str, ...]
    handler: Handler = Handler.BACKGROUND
    transport: Transport = Transport.TLS
    overlay_folder: str | None = None
    bandwidth: Bandwidth = None
    ports: range = DEFAULT_PORTS
    overcommit: bool = False
    skip_refused: bool = False
    release: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for what can be seen to be wrong without any host."""
        if not self.targets:
            raise UsageError("no host is named to which the guests are to go", hint="name one, or several")
        if self.source in self.targets:
            raise UsageError(f"{self.source} cannot be emptied and take its guests", hint="name other hosts")
        if self.release and not self.settles:
            what = f"--release needs a policy that ends by itself, and {self.handler} goes on needing {self.source}"
            raise UsageError(what, hint="leave --policy out")
        self.request("", self.targets[0])

    @property
    def settles(self) -> bool:
        """Whether it is waited until nothing depends on the source: some policies leave data there on purpose."""
        return self.handler in (Handler.BACKGROUND, Handler.MISS)

    def request(self, vm: str, target: str) -> Request:
        """What it asks of one guest."""
        return Request(
            vm, target, self.handler, source=self.source, transport=self.transport,
            overlay_folder=self.overlay_folder, bandwidth=self.bandwidth, ports=self.ports,
        )  # fmt: skip


@dataclass(frozen=True)
class Room:
    """What a host can give: bytes of memory, and bytes of space by file system."""

    memory: int
    space: Mapping[str, int]


@dataclass(frozen=True)
class Chance:
    """A guest tried out on one target: what stands in its way, and the space that it takes, of which file system."""

    target: str
    problems: tuple[Problem, ...] = ()
    file_system: str = ""
    space: int = 0


@dataclass(frozen=True)
class Tried:
    """A guest tried out on the targets. `memory` is what it takes on any of them; `migration` is one that was broken
    off, and that it goes on with."""

    vm: str
    chances: tuple[Chance, ...]
    memory: int = 0
    migration: str | None = None


class Action(StrEnum):
    """What is to be done with a guest."""

    MOVE = "move"
    RESUME = "resume"  # a migration of it was broken off
    SETTLE = "settle"  # it has left, and still needs the host
    RELEASE = "release"  # it has left, and needs the host no more
    NOTHING = "nothing"  # it has left, and nothing more was asked for
    REFUSED = "refused"


@dataclass(frozen=True)
class Step:
    """What is to be done with one guest. `host`: where it runs then. `migration`: one that it goes on with."""

    vm: str
    action: Action
    host: str | None = None
    migration: str | None = None
    problems: tuple[Problem, ...] = ()


def assign(tried: Iterable[Tried], rooms: Mapping[str, Room], *, overcommit: bool = False) -> tuple[Step, ...]:
    """Who goes where: the largest in memory chooses first, and takes of the targets with room the one with the most
    memory left; where two have as much, the one that was named first. What one has been given no other is given, but
    for memory with `overcommit`.
    """
    left, steps = dict(rooms), []
    for guest in sorted(tried, key=lambda guest: (-guest.memory, guest.vm)):
        why = {chance: chance.problems or _no_room(guest, chance, left, overcommit) for chance in guest.chances}
        able = [chance for chance, problems in why.items() if not problems]
        if not able:
            # What is wrong with the guest itself is found on the way to every target.
            problems = dict.fromkeys(problem for found in why.values() for problem in found)
            steps.append(Step(guest.vm, Action.REFUSED, problems=tuple(problems)))
            continue
        best = max(able, key=lambda chance: left[chance.target].memory)
        left[best.target] = _without(left[best.target], guest, best)
        action = Action.MOVE if guest.migration is None else Action.RESUME
        steps.append(Step(guest.vm, action, best.target, guest.migration))
    return tuple(sorted(steps, key=lambda step: step.vm))


def _without(room: Room, guest: Tried, chance: Chance) -> Room:
    space = {**room.space, chance.file_system: room.space.get(chance.file_system, 0) - chance.space}
    return replace(room, memory=room.memory - guest.memory, space=space)


def _no_room(guest: Tried, chance: Chance, left: Mapping[str, Room], overcommit: bool) -> tuple[Problem, ...]:
    room = left[chance.target]
    needs = [("space", chance.space, room.space.get(chance.file_system, 0))]
    if not overcommit:
        needs.append(("memory", guest.memory, room.memory))
    return tuple(
        Problem(chance.target, f"{guest.vm} may take {human_bytes(needed)} of {what}, {_left(free)}", _MORE[overcommit])
        for what, needed, free in needs
        if needed > free
    )


def _left(free: int) -> str:
    return f"and {human_bytes(max(free, 0))} are left by the others"


_MORE = {
    False: "name one more target, or keep no room for what may be taken at worst: --overcommit",
    True: "name one more target, or make room there",
}


class Whereabouts(StrEnum):
    """What became of a guest."""

    RELEASED = "released"  # it needs the host no more, which has forgotten it
    SETTLED = "settled"  # it needs the host no more
    NEEDS_HOST = "needs-host"  # it runs elsewhere, and reads from the host
    STAYS = "stays"  # it runs on the host
    GONE = "gone"  # it has ended


@dataclass(frozen=True)
class Outcome:
    """Of what was done with a guest: the error that it ended with, and how long the guest stood still."""

    error: EsdError | None = None
    downtime_ms: float | None = None


@dataclass(frozen=True)
class Fate:
    """What became of a guest. `host`: where it runs, None: nowhere. `problem`: what went wrong; `next`: what is to be
    done about that, or is left to do."""

    vm: str
    state: Whereabouts
    host: str | None
    downtime_ms: float | None = None
    problem: str | None = None
    next: str | None = None


@dataclass(frozen=True)
class Evacuated:
    """What came of an evacuation. `empty`: nothing depends on the host any more. `devices`: those that look shared, and
    have data there."""

    host: str
    empty: bool
    guests: tuple[Fate, ...]
    devices: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """As errors.ENDINGS has it: something is on the host still; else, it is needed, or an end is not reached."""
        states = {guest.state for guest in self.guests}
        if self.devices or states & {Whereabouts.STAYS, Whereabouts.GONE}:
            return RolledBackError.exit_status
        if not self.empty or any(guest.problem for guest in self.guests):
            return UnfinishedError.exit_status
        return 0


@dataclass(frozen=True)
class Seen:
    """A guest afterwards: what was to be done with it, if anything, and what came of that. The host `runs` it, or
    `serves` its data to another one."""

    vm: str
    step: Step | None
    outcome: Outcome
    runs: bool
    serves: str | None


def fate(order: Evacuation, seen: Seen) -> Fate:
    """What became of a guest."""
    state, error = _state(order, seen), seen.outcome.error
    elsewhere = (seen.step and seen.step.host) or seen.serves
    host = {Whereabouts.STAYS: order.source, Whereabouts.GONE: None}.get(state, elsewhere)
    problem, mend = (str(error), error.hint) if error else _not_tried(seen)
    left_to_do = f"{_NEXT[state]} {shlex.quote(seen.vm)}" if state in _NEXT else None
    return Fate(seen.vm, state, host, seen.outcome.downtime_ms, problem, mend or left_to_do)


_NEXT = {Whereabouts.NEEDS_HOST: "qemu-esd settle", Whereabouts.SETTLED: "qemu-esd release"}


def _state(order: Evacuation, seen: Seen) -> Whereabouts:
    step, error = seen.step, seen.outcome.error
    if step is not None and step.action is Action.REFUSED:
        return Whereabouts.STAYS
    # Past its commit a guest is not the host's, though its QEMU may not have ended there.
    if seen.runs and not isinstance(error, UnfinishedError):
        return Whereabouts.STAYS
    if seen.runs or seen.serves is not None:
        return Whereabouts.NEEDS_HOST
    if step is not None and step.action is Action.MOVE and error is not None and not isinstance(error, UnfinishedError):
        return Whereabouts.GONE
    return Whereabouts.RELEASED if order.release and error is None else Whereabouts.SETTLED


def _not_tried(seen: Seen) -> tuple[str | None, str | None]:
    """Why nothing was done with it, and what mends that."""
    if seen.step is None:
        return ("it came when the others had been tried out", None) if seen.runs else (None, None)
    for problem in seen.step.problems:
        return f"{problem.host}: {problem.what}", problem.hint or None
    return None, None
