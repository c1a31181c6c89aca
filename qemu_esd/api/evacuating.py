"""A host is emptied of its guests: they are moved one after another, and their data follows side by side.

There is no journal of it. What is where is asked of the host each time, so the same order given again goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from qemu_esd import evacuation
from qemu_esd.api.evacuation_plan import EvacuationPlan, plan_evacuation
from qemu_esd.api.moving import migrate, recover
from qemu_esd.api.settling import release_guest, settle_guest
from qemu_esd.errors import EsdError, RefusedError, UnfinishedError
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.journal import store
from qemu_esd.model.evacuation import Action, Evacuated, Evacuation, Outcome, Seen, Step, fate
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import State
from qemu_esd.model.recovery import Wish
from qemu_esd.phases.context import Event, Reporter

# Told of each guest by its name.
Hear = Callable[[str, Event], None]
# Asked once, when the plan is known and nothing has been touched.
Agree = Callable[[EvacuationPlan], Awaitable[bool]]


class EvacuationRefusedError(RefusedError):
    """Something of the host cannot move; `plan` says what, and nothing was touched."""

    def __init__(self, plan: EvacuationPlan) -> None:
        hint = "mend what the plan names, or leave those where they are: qemu-esd evacuate --skip-refused ..."
        super().__init__("not everything of it can move", host=plan.order.source, hint=hint)
        self.plan = plan


async def evacuate(order: Evacuation, hear: Hear, agree: Agree | None = None) -> Evacuated:
    """Move all guests of a host, and wait until nothing depends on it. What became of each, by name.

    A guest that fails is where it was, and keeps no other. Raises EvacuationRefusedError and RefusedError (nothing
    touched), UnfinishedError. Cancelled, the guest that moves just then rolls back, or arrives, first.
    """
    plan = await plan_evacuation(order)
    if plan.refused and not order.skip_refused:
        raise EvacuationRefusedError(plan)
    if agree is not None and not await agree(plan):
        raise RefusedError("not confirmed, and nothing was touched")
    work = _Work(order, hear)
    await work.all(plan.steps)
    return await _look_back(plan, work)


@dataclass(frozen=True)
class _Work:
    """An order that is carried out. `outcomes`: by guest, what went wrong, and how long it stood still."""

    order: Evacuation
    hear: Hear
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    async def all(self, steps: Iterable[Step]) -> None:
        """A kill anywhere: each guest is where a kill of its own command would leave it."""
        async with asyncio.TaskGroup() as beside:
            left = [step for step in steps if _has_left(step)]
            for step in left:
                beside.create_task(self._see_through(step))
            for step in steps:
                moves = step.action in (Action.MOVE, Action.RESUME) and step not in left
                # The memory of one at a time has all of the link.
                if moves and await self._noting(step, self._bring(step)):
                    beside.create_task(self._noting(step, self._finish(step)))

    async def _see_through(self, step: Step) -> None:
        """A guest that has left: only its data is to come."""
        if step.action is not Action.RESUME or await self._noting(step, self._bring(step)):
            await self._noting(step, self._finish(step))

    async def _noting(self, step: Step, work: Coroutine[Any, Any, None]) -> bool:
        """Whether it went well."""
        try:
            await work
        except EsdError as error:
            self._note(step.vm, error=error)
            return False
        return True

    def _note(self, vm: str, *, error: EsdError | None = None, downtime_ms: float | None = None) -> None:
        before = self.outcomes.get(vm, Outcome())
        self.outcomes[vm] = Outcome(error or before.error, downtime_ms or before.downtime_ms)

    async def _bring(self, step: Step) -> None:
        """The guest runs on its target when this returns."""
        assert step.host is not None
        hear = self._hear(step.vm)
        if step.migration is not None:
            recovered = await recover(store.read(step.migration), Wish.ON, hear)
            self._note(step.vm, downtime_ms=recovered.downtime_ms)
            if recovered.committed:
                return
        moved = await migrate(self.order.request(step.vm, step.host), hear, until_settled=False)
        self._note(step.vm, downtime_ms=moved.downtime_ms)

    async def _finish(self, step: Step) -> None:
        """The guest needs the host no more when this returns, unless the policy wants it so."""
        if self.order.settles and step.action is not Action.RELEASE:
            hear = self._hear(step.vm)
            await settle_guest(step.vm, step.host, lambda disk, done, total: hear(Progress(disk, done, total)))
            hear(State.SETTLED)
        if self.order.release:
            await release_guest(step.vm, step.host)
            self.hear(step.vm, State.RELEASED)

    def _hear(self, vm: str) -> Reporter:
        return lambda event: self.hear(vm, event)


def _has_left(step: Step) -> bool:
    """Whether the guest has left the host, as far as this controller can tell, and is to be seen through."""
    if step.action is Action.RESUME and step.migration is not None:
        return store.read(step.migration).state.committed
    return step.action in (Action.SETTLE, Action.RELEASE)


async def _look_back(plan: EvacuationPlan, work: _Work) -> Evacuated:
    """What depends on the host now, by its own word."""
    source = plan.order.source
    try:
        async with open_hosts() as hosts:
            found = await evacuation.survey(hosts, source)
    except EsdError as error:
        raise UnfinishedError(
            f"{source} cannot be asked any more what it has: {error}", hint="qemu-esd status"
        ) from error
    steps = {step.vm: step for step in plan.steps}
    seen = (
        Seen(vm, steps.get(vm), work.outcomes.get(vm, Outcome()), vm in found.running, found.serving.get(vm))
        for vm in sorted({*steps, *found.running, *found.serving})
    )
    return Evacuated(
        source,
        not (found.running or found.nameless or found.serving or found.devices),
        tuple(fate(plan.order, each) for each in seen),
        found.devices,
    )
