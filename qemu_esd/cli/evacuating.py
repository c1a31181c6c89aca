"""What `evacuate` does with its words: try it out, or do it, and tell how it goes."""

from __future__ import annotations

import asyncio
import dataclasses
import shlex
import sys

import typer

from qemu_esd import api
from qemu_esd.cli import asking, render, render_evacuation
from qemu_esd.cli.render_progress import Display, display_for, words_of
from qemu_esd.cli.running import run
from qemu_esd.errors import EsdError, RefusedError, RolledBackError, UnfinishedError
from qemu_esd.model.evacuation import Evacuated, Evacuation
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Measured, State


def try_out(order: Evacuation, as_json: bool) -> None:
    """`--dry-run`: the plan and every problem. Touches nothing."""
    plan = run(api.plan_evacuation(order), "trying out all guests")
    if as_json:
        render.show_json(render_evacuation.plan_json(plan))
    else:
        render.show(render_evacuation.plan_picture(plan))
        render.show("nothing was touched")
    if plan.refused and not order.skip_refused:
        raise typer.Exit(RefusedError.exit_status)


def carry_out(order: Evacuation, *, ask: bool, as_json: bool) -> None:
    """Empty the host, and tell what became of its guests."""
    listener = Listener(order, ask=ask and not as_json)
    if sys.stderr.isatty():
        listener.display.say(f"trying out all guests of {order.source}")
    try:
        done = run(api.evacuate(order, listener, listener.agree))
    except api.EvacuationRefusedError as error:
        render.note(render_evacuation.refusal(error.plan))
        raise typer.Exit(error.exit_status) from None
    except asyncio.CancelledError:
        listener.display.close()
        raise listener.interrupted() from None
    finally:
        listener.display.close()
    _tell(done, as_json)


def _tell(done: Evacuated, as_json: bool) -> None:
    if as_json:
        render.show_json(dataclasses.asdict(done))
    else:
        render.show(render_evacuation.outcome(done, again()))
    if done.exit_status:
        raise typer.Exit(done.exit_status)


def again() -> str:
    """The command as it was given."""
    return shlex.join(("qemu-esd", *sys.argv[1:]))


class Listener:
    """Hears what the engine tells of each guest, and passes it on to the display."""

    def __init__(self, order: Evacuation, *, ask: bool) -> None:
        self.display: Display = display_for(sys.stderr)
        self._order = order
        self._ask = ask
        self._plan: api.EvacuationPlan | None = None
        self._states: dict[str, State] = {}

    async def agree(self, plan: api.EvacuationPlan) -> bool:
        """Called when the plan is known. Asks only at a terminal, and only where something may be unwelcome."""
        self._plan = plan
        render.note(render_evacuation.plan_picture(plan))
        if not (self._ask and render_evacuation.doubts(plan) and asking.somebody_is_there()):
            return True
        return await asking.answered_yes(f"Evacuate {plan.order.source}? [y/N] ")

    def __call__(self, vm: str, event: api.Event) -> None:
        match event:
            case Progress():
                self.display.show(dataclasses.replace(event, what=f"{vm} {event.what}"))
                return
            case State():
                self._states[vm] = event
            case Measured():
                pass
        # Bars of other guests stay.
        self.display.clear(f"{vm} ")
        if line := self._line(vm, event):
            self.display.say(f"{vm}: {line}")

    def _line(self, vm: str, event: State | Measured) -> str | None:
        if event is State.RELEASED:
            return f"{self._order.source} has forgotten it"
        assert self._plan is not None
        (target,) = (step.host for step in self._plan.steps if step.vm == vm)
        return words_of(event, vm, self._order.source, target or "its target")

    def interrupted(self) -> EsdError:
        """What a Ctrl-C has led to, by how far each guest was."""
        if self._plan is None or not self._states:
            return EsdError("stopped, and nothing was touched")
        told = "; ".join(render_evacuation.standing(self._plan, self._states))
        left = any(state.committed for state in self._states.values())
        return (UnfinishedError if left else RolledBackError)(f"stopped: {told}", hint=f"to go on: {again()}")
