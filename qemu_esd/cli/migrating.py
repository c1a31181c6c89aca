"""What `migrate` does with a request: try it out, or do it, and tell how it goes."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

import typer

from qemu_esd import api
from qemu_esd.cli import asking, render, render_doctor, render_outcome, render_plan
from qemu_esd.cli.render_progress import Display, display_for, tell
from qemu_esd.cli.running import run
from qemu_esd.errors import EsdError, RefusedError, RolledBackError, UnfinishedError
from qemu_esd.model.finding import Level
from qemu_esd.model.plan import Plan, Problem, problem_of
from qemu_esd.model.policy import Handler
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Measured, State
from qemu_esd.model.request import Request
from qemu_esd.phases.plan import Proposal
from qemu_esd.view import MigrationView


def try_out(request: Request, as_json: bool) -> None:
    """`--dry-run`: the plan, every problem found, and a forecast. Touches nothing."""
    trial: api.Trial | None = None
    try:
        trial = run(api.try_out(request), "looking at both hosts")
        problems = trial.problems
    except RefusedError as error:
        problems = (problem_of(error, request.target),)
    if as_json:
        render.show_json(_trial_json(trial, problems))
    else:
        if trial:
            _show_trial(trial)
        render.show(render_plan.problem_list(problems))
    if problems:
        raise typer.Exit(RefusedError.exit_status)


def _trial_json(trial: api.Trial | None, problems: tuple[Problem, ...]) -> dict[str, Any]:
    plan = trial and render_plan.plan_json(trial.proposal.plan, trial.proposal.remarks)
    return {
        "plan": plan,
        "problems": [dataclasses.asdict(problem) for problem in problems],
        "findings": [dataclasses.asdict(finding) for finding in trial.findings] if trial else [],
        "forecast": dataclasses.asdict(trial.forecast) if trial and trial.forecast else None,
    }


def _show_trial(trial: api.Trial) -> None:
    render.show(render_plan.plan_picture(trial.proposal.plan, trial.proposal.remarks))
    if trial.forecast:
        render.show(render_doctor.forecast_picture(trial.forecast))
    for finding in trial.findings:
        if finding.level is not Level.PROBLEM:
            render.show(render_doctor.finding_text(finding, finding.host))


@dataclass(frozen=True)
class Order:
    """A request, and what the user wants besides: to return early, to end with a release, to be asked, JSON."""

    request: Request
    detach: bool
    release: bool
    ask: bool
    as_json: bool


def move(order: Order) -> None:
    """Move the guest, and tell the outcome."""
    listener = Listener(order)
    listener.begin()
    try:
        moved = run(_move(order, listener))
    except api.PlanRefusedError as error:
        render.note(render_plan.refusal(order.request.vm, order.request.target, error.problems))
        raise typer.Exit(error.exit_status) from None
    except EsdError:
        _tell_broken_off(order, listener)
        raise
    except asyncio.CancelledError:
        _tell_broken_off(order, listener)
        raise listener.interrupted() from None
    finally:
        listener.display.close()
    if order.as_json:
        render.show_json(dataclasses.asdict(moved))
    else:
        render.show(render_outcome.outcome(moved, listener.figures, goes_on=order.detach))


async def _move(order: Order, listener: Listener) -> MigrationView:
    request = order.request
    if order.detach:
        return await api.migrate_detached(request, listener, release=order.release, agree=listener.agree)
    moved = await api.migrate(request, listener, agree=listener.agree)
    if not order.release:
        return moved
    try:
        await api.release_guest(request.vm)
    except EsdError as error:
        what = f"{request.vm} is settled on {request.target}, but {moved.source} did not forget it: {error}"
        raise UnfinishedError(what, hint=f"qemu-esd release {request.vm}") from error
    return dataclasses.replace(moved, state=State.RELEASED)


def _tell_broken_off(order: Order, listener: Listener) -> None:
    """A migration that has begun has an outcome to tell, whatever it is."""
    listener.display.close()
    if order.as_json and listener.plan is not None and listener.state is not None:
        render.show_json(dataclasses.asdict(api.recorded(listener.plan.id)))


class Listener:
    """Hears what the engine tells of one migration: keeps what the end needs, and passes it on to the display."""

    def __init__(self, order: Order) -> None:
        self.display: Display = display_for(sys.stderr)
        self.plan: Plan | None = None
        self.state: State | None = None
        self.figures: dict[str, float] = {}
        self._order = order

    def begin(self) -> None:
        """Until there is a plan somebody at the terminal waits for both hosts."""
        if sys.stderr.isatty():
            self.display.say(f"looking at {self._order.request.vm}, and at {self._order.request.target}")

    def __call__(self, event: State | Measured | Progress) -> None:
        match event:
            case State():
                self.state = event
            case Measured(name, ms):
                self.figures[name] = ms
        assert self.plan is not None
        tell(self.display, event, self.plan)

    async def agree(self, proposal: Proposal) -> bool:
        """Called when the plan is known. Asks only at a terminal, and only where something may be unwelcome."""
        self.plan = proposal.plan
        doubts = render_plan.doubts(proposal.plan, proposal.remarks)
        if not doubts:
            return True
        render.note(render_plan.doubt_list(doubts))
        if not (self._order.ask and not self._order.as_json and asking.somebody_is_there()):
            return True
        return await asking.answered_yes(f"Migrate {proposal.plan.vm} to {proposal.plan.target.host}? [y/N] ")

    def interrupted(self) -> EsdError:
        """What a Ctrl-C has led to, by how far the migration was."""
        vm, state, plan = self._order.request.vm, self.state, self.plan
        if state is None or plan is None:
            return EsdError("stopped, and nothing was touched")
        if not state.committed:
            return RolledBackError(f"rolled back, {vm} runs on {plan.source.host} as before")
        moving = any(disk.handler is Handler.BACKGROUND for disk in plan.disks)
        more = ", and QEMU's own job goes on moving its data" if moving and state is State.SETTLING else ""
        hint = api.command_to_go_on(vm, (disk.handler for disk in plan.disks))
        return UnfinishedError(f"stopped: {vm} runs on {plan.target.host}{more}", hint=hint)
