"""What is to be done to empty a host: each guest is tried out on the targets, as by `migrate --dry-run`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from qemu_esd import evacuation, status, trial
from qemu_esd.api.looking import propose
from qemu_esd.errors import EsdError, UsageError
from qemu_esd.hosts.connect import Hosts, open_hosts
from qemu_esd.journal import registry
from qemu_esd.journal.store import Story
from qemu_esd.model.evacuation import Action, Chance, Evacuation, Room, Step, Tried, assign
from qemu_esd.model.plan import Plan, Problem, problem_of
from qemu_esd.phases.forecast import Forecast
from qemu_esd.phases.plan import Proposal

# So many guests are tried out side by side.
AT_ONCE = 4


@dataclass(frozen=True)
class EvacuationPlan:
    """What is to be done with each guest, by name. Of those that move also the proposal and a forecast.

    `rooms`: what the targets have; `closed`: those that take nobody, and why. `devices`: SUIDs that have data on the
    host, which no guest takes with it.
    """

    order: Evacuation
    steps: tuple[Step, ...]
    proposals: Mapping[str, Proposal] = field(default_factory=dict)
    forecasts: Mapping[str, Forecast] = field(default_factory=dict)
    rooms: Mapping[str, Room] = field(default_factory=dict)
    closed: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    devices: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether something would stay on the host."""
        return bool(self.devices) or any(step.action is Action.REFUSED for step in self.steps)


@dataclass(frozen=True)
class _Attempt:
    """A guest tried out on one target."""

    target: str
    problems: tuple[Problem, ...]
    plan: Plan | None = None
    proposal: Proposal | None = None


_Attempts = Mapping[str, tuple[_Attempt, ...]]


async def plan_evacuation(order: Evacuation) -> EvacuationPlan:
    """What `evacuate` would do, and what stands in its way. Touches nothing on any host."""
    async with open_hosts() as hosts:
        found = await evacuation.survey(hosts, order.source)
        ends = await evacuation.ends(hosts, order) if found.running else {}
        closed = {target: problems for target, end in ends.items() if (problems := trial.for_every_guest(end.findings))}
        stories = evacuation.broken_off(order.source)
        attempts = await _try_all(order, sorted(found.running - stories.keys()), closed)
        attempts |= {vm: (_as_begun(story),) for vm, story in stories.items() if not story.state.committed}
        rooms, tried = await _with_room(hosts, order, attempts, stories)
    others = [*_others(order.source, found, stories), *await _departed(order, found, stories)]
    steps = tuple(sorted((*assign(tried, rooms, overcommit=order.overcommit), *others), key=lambda step: step.vm))
    proposals = dict(_proposals(steps, attempts))
    forecasts = {vm: evacuation.forecast_of(each, ends[each.plan.target.host]) for vm, each in proposals.items()}
    return EvacuationPlan(order, steps, proposals, forecasts, rooms, closed, found.devices)


async def _try_all(
    order: Evacuation, vms: Sequence[str], closed: Mapping[str, tuple[Problem, ...]]
) -> dict[str, tuple[_Attempt, ...]]:
    """Guests side by side, and each on one target after another: its monitor has one client at a time."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def try_one(vm: str) -> tuple[_Attempt, ...]:
        async with turns:
            return tuple([await _try(order, vm, target, closed.get(target)) for target in order.targets])

    return dict(zip(vms, await asyncio.gather(*map(try_one, vms)), strict=True))


async def _try(order: Evacuation, vm: str, target: str, closed: tuple[Problem, ...] | None) -> _Attempt:
    if closed:
        return _Attempt(target, closed)
    try:
        proposal = await propose(order.request(vm, target))
    except UsageError:
        raise
    except EsdError as error:
        return _Attempt(target, (problem_of(error, target),))
    return _Attempt(target, proposal.problems, proposal.plan, proposal)


def _as_begun(story: Story) -> _Attempt:
    """It goes on to where it was going, or is moved there anew."""
    return _Attempt(story.plan.target.host, (), story.plan)


async def _with_room(
    hosts: Hosts, order: Evacuation, attempts: _Attempts, stories: Mapping[str, Story]
) -> tuple[dict[str, Room], list[Tried]]:
    """What the targets have, and what each guest takes there."""
    able = [each for tries in attempts.values() for each in tries if each.plan and not each.problems]
    plans: dict[str, list[Plan]] = {}
    for each in able:
        assert each.plan is not None
        plans.setdefault(each.target, []).append(each.plan)
    # Side by side, so that what a target has is compared with what another one has at that time.
    found = await asyncio.gather(*(evacuation.room(hosts, target, wanted) for target, wanted in plans.items()))
    looked = dict(zip(plans, found, strict=True))
    rooms = {target: room for target, (room, _) in looked.items()}

    def chance(each: _Attempt) -> Chance:
        if each.plan is None or each.problems:
            return Chance(each.target, each.problems)
        mount = looked[each.target][1][evacuation.folder_of(each.plan)]
        return Chance(each.target, (), mount, evacuation.space_of(each.plan, overcommit=order.overcommit))

    return rooms, [_tried(vm, tries, tuple(map(chance, tries)), stories.get(vm)) for vm, tries in attempts.items()]


def _tried(vm: str, attempts: Iterable[_Attempt], chances: tuple[Chance, ...], story: Story | None) -> Tried:
    memory = max((each.plan.guest.memory for each in attempts if each.plan), default=0)
    return Tried(vm, chances, memory, story.plan.id if story else None)


def _proposals(steps: Iterable[Step], attempts: _Attempts) -> Iterator[tuple[str, Proposal]]:
    for step in steps:
        for each in attempts.get(step.vm, ()):
            if step.action is Action.MOVE and each.target == step.host and each.proposal is not None:
                yield step.vm, each.proposal


def _others(source: str, found: evacuation.Survey, stories: Mapping[str, Story]) -> Iterator[Step]:
    """What is not to be tried out: past its commit, or nothing that could be moved."""
    for vm, story in stories.items():
        if story.state.committed:
            yield Step(vm, Action.RESUME, story.plan.target.host, story.plan.id)
    for pid in found.nameless:
        problem = Problem(source, f"a QEMU without a name runs there (pid {pid})", "start it with -name, or end it")
        yield Step(f"(pid {pid})", Action.REFUSED, problems=(problem,))


async def _departed(order: Evacuation, found: evacuation.Survey, stories: Mapping[str, Story]) -> list[Step]:
    """Guests that have left the host before, wherever they have moved on to since."""
    left = {vm: to for vm, to in {**found.kept, **found.serving}.items() if vm not in found.running | stories.keys()}
    views = (await status.look(registry.Known(vm, (to,)) for vm, to in left.items())).guests if left else ()
    return [Step(view.vm, _of_departed(order, serving=view.vm in found.serving), view.host) for view in views]


def _of_departed(order: Evacuation, *, serving: bool) -> Action:
    if serving and order.settles:
        return Action.SETTLE
    return Action.RELEASE if order.release and not serving else Action.NOTHING
