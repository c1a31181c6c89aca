"""What is to be done to empty a host, and what came of it: for people, and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qemu_esd import api
from qemu_esd.cli import render_plan
from qemu_esd.cli.render import hint_text, plain_table, printable, whole_line
from qemu_esd.model.evacuation import Action, Evacuated, Fate, Step, Whereabouts
from qemu_esd.model.plan import Problem
from qemu_esd.model.record import State
from qemu_esd.units import human_bytes, human_seconds

RULE = "largest memory first, to the target with room that has most memory left"
ACTIONS = {
    Action.MOVE: "move",
    Action.RESUME: "resume",
    Action.SETTLE: "settle",
    Action.RELEASE: "release",
    Action.NOTHING: "has left",
    Action.REFUSED: "refused",
}
STATES = {
    Whereabouts.RELEASED: "released",
    Whereabouts.SETTLED: "settled",
    Whereabouts.NEEDS_HOST: "moved, and needs {host}",
    Whereabouts.STAYS: "has not moved",
    Whereabouts.GONE: "has ended",
}


def plan_picture(plan: api.EvacuationPlan) -> RenderableType:
    """The plan as a page, with what stands in its way."""
    source = plan.order.source
    if not plan.steps and not plan.devices:
        return whole_line(f"no guest runs on {source}, and none needs it")
    parts: list[RenderableType] = [whole_line(f"evacuate {source}: {RULE}"), _steps(plan)]
    parts += [whole_line(f"  {line}") for line in _rooms(plan)]
    parts += [whole_line(f"note: {note}", "yellow") for note in (*doubts(plan), *_closed(plan))]
    return Group(*parts, *refusals(plan))


def _steps(plan: api.EvacuationPlan) -> Table:
    right = ("memory", "data", "space at most", "takes")
    table = plain_table("guest", "what", "to", "memory", "data", "space at most", "takes", right=right)
    for step in plan.steps:
        words = (printable(step.vm), ACTIONS[step.action], step.host or "-")
        told = plan.forecasts.get(step.vm)
        if told is None:
            table.add_row(*words, "", "", "", "")
            continue
        seconds = (told.memory_seconds or 0) + (told.later_seconds or 0)
        sizes = (told.memory, sum(disk.later_most for disk in told.disks), told.worst)
        table.add_row(*words, *map(human_bytes, sizes), human_seconds(seconds) if told.rate else "?")
    return table


def _rooms(plan: api.EvacuationPlan) -> Iterator[str]:
    """What each target is given, of what it has."""
    for target, room in plan.rooms.items():
        given = [plan.forecasts[step.vm] for step in plan.steps if step.host == target and step.vm in plan.forecasts]
        memory, space = sum(told.memory for told in given), sum(told.worst for told in given)
        free = ", ".join(f"{human_bytes(count)} on {mount}" for mount, count in sorted(room.space.items()))
        yield (
            f"{target}: {human_bytes(memory)} of {human_bytes(room.memory)} of memory, "
            f"and at most {human_bytes(space)} of space ({free} free)"
        )


def _closed(plan: api.EvacuationPlan) -> Iterator[str]:
    for target, problems in plan.closed.items():
        yield f"{target} takes no guest: {problems[0].what} (try: {problems[0].hint})"


def doubts(plan: api.EvacuationPlan) -> list[str]:
    """What a user may not have meant, each with its guest."""
    found = []
    for vm, proposal in plan.proposals.items():
        found += [f"{printable(vm)}: {doubt}" for doubt in render_plan.doubts(proposal.plan, proposal.remarks)]
    return found


def refusals(plan: api.EvacuationPlan) -> list[RenderableType]:
    """What cannot move, and what mends it."""
    lines: list[RenderableType] = []
    for step in plan.steps:
        lines += [_problem(f"{printable(step.vm)} cannot move", problem) for problem in step.problems]
    for suid in plan.devices:
        hint = f"qemu-esd device move {suid} {plan.order.targets[0]}, then: qemu-esd device settle {suid}"
        problem = Problem(plan.order.source, "it has data there, and no guest takes it along", hint)
        lines.append(_problem(f"the device {suid} looks shared", problem))
    return lines


def _problem(head: str, problem: Problem) -> Text:
    text = whole_line(f"{head}: ", "bold red").append(f"{problem.host}: {printable(problem.what)}", "not bold default")
    return text.append_text(hint_text(problem.hint, "    ")) if problem.hint else text


def refusal(plan: api.EvacuationPlan) -> RenderableType:
    """An error with all its reasons."""
    head = Text.assemble(("error: ", "bold red"), f"not everything of {plan.order.source} can move:")
    hint = hint_text("mend what is named; or, to leave that where it is, add: --skip-refused")
    return Group(head, *refusals(plan), Text("Nothing was touched.").append_text(hint))


def plan_json(plan: api.EvacuationPlan) -> dict[str, Any]:
    """The plan for scripts. Sizes in bytes."""
    return {
        "host": plan.order.source,
        "guests": [_step_json(plan, step) for step in plan.steps],
        "rooms": {target: dataclasses.asdict(room) for target, room in plan.rooms.items()},
        "closed": {target: [dataclasses.asdict(each) for each in why] for target, why in plan.closed.items()},
        "devices": list(plan.devices),
    }


def _step_json(plan: api.EvacuationPlan, step: Step) -> dict[str, Any]:
    told, proposal = plan.forecasts.get(step.vm), plan.proposals.get(step.vm)
    return dataclasses.asdict(step) | {
        "forecast": dataclasses.asdict(told) if told else None,
        "remarks": list(proposal.remarks) if proposal else [],
    }


def outcome(done: Evacuated, again: str) -> RenderableType:
    """What became of each guest, and what is next."""
    table = plain_table("guest", "on", "", "stood still", "next")
    for guest in done.guests:
        still = human_seconds(guest.downtime_ms / 1000) if guest.downtime_ms is not None else ""
        state = STATES[guest.state].format(host=done.host)
        table.add_row(printable(guest.vm), guest.host or "-", state, still, printable(_next(guest, again)))
    parts: list[RenderableType] = [table, ""] if done.guests else []
    parts += [_failure(guest) for guest in done.guests if guest.problem]
    parts += [whole_line(f"the device {suid} has data on {done.host}", "yellow") for suid in done.devices]
    return Group(*parts, whole_line(_verdict(done)))


def _next(guest: Fate, again: str) -> str:
    if guest.problem is not None:
        return "see below"
    return guest.next or (again if guest.state is Whereabouts.STAYS else "")


def _failure(guest: Fate) -> Text:
    text = whole_line(f"{guest.vm}: {guest.problem}", "yellow")
    return text.append_text(hint_text(guest.next)) if guest.next else text


def _verdict(done: Evacuated) -> str:
    if done.empty:
        return f"Nothing depends on {done.host} any more: it may be switched off."
    return f"{done.host} is not free yet: it must not be switched off."


def standing(plan: api.EvacuationPlan, states: Mapping[str, State]) -> Iterator[str]:
    """Where each guest is, by how far it was when all was stopped."""
    source = plan.order.source
    for step in plan.steps:
        state = states.get(step.vm)
        if step.action is Action.SETTLE or (state is not None and state.committed):
            done = state in (State.SETTLED, State.RELEASED)
            yield f"{step.vm} runs on {step.host}" + ("" if done else f", and needs {source}")
        elif step.action is Action.MOVE:
            yield f"{step.vm} runs on {source} as before"
