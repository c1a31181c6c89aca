"""What an operator reads who empties a host: the plan, what cannot move, what became of each guest."""

from __future__ import annotations

import asyncio
import json

import pytest

from qemu_esd.api import EvacuationPlan
from qemu_esd.cli import evacuating, render_evacuation, several
from qemu_esd.cli.evacuating import Listener
from qemu_esd.errors import EsdError, RefusedError, RolledBackError, UnfinishedError
from qemu_esd.hosts.wire import Wire
from qemu_esd.model.evacuation import Action, Evacuated, Evacuation, Fate, Room, Step, Whereabouts
from qemu_esd.model.plan import Problem
from qemu_esd.model.record import State
from qemu_esd.phases.forecast import forecast
from qemu_esd.phases.plan import Proposal
from qemu_esd.view import GuestView, of_absent
from tests.cli.test_render import drawn
from tests.support.samples import MIB, plan

ORDER = Evacuation("a", ("b", "c"))
FLOPPY = Problem("a", "it has a floppy disk", "detach it")
STEPS = (
    Step("db", Action.SETTLE, "c"),
    Step("odd", Action.REFUSED, problems=(FLOPPY,)),
    Step("vm", Action.MOVE, "b"),
)
PLAN = EvacuationPlan(
    ORDER,
    STEPS,
    {"vm": Proposal(plan(), (), ("a named model avoids it",))},
    {"vm": forecast(plan(), Wire(rate=16 * MIB, round_trip=0.001), ())},
    {"b": Room(1024 * MIB, {"/": 512 * MIB})},
    {"c": (Problem("c", "there is no qemu-img", "install it"),)},
    ("suid1",),
)


def test_a_plan() -> None:
    assert drawn(render_evacuation.plan_picture(PLAN), 120) == (
        "evacuate a: largest memory first, to the target with room that has most memory left\n"
        "guest  what     to     memory     data  space at most   takes\n"
        "db     settle   c\n"
        "odd    refused  -\n"
        "vm     move     b   256.0 MiB  8.0 MiB      128.0 MiB  16.5 s\n"
        "  b: 256.0 MiB of 1.0 GiB of memory, and at most 128.0 MiB of space (512.0 MiB on / free)\n"
        "note: vm: a named model avoids it\n"
        "note: c takes no guest: there is no qemu-img (try: install it)\n"
        "odd cannot move: a: it has a floppy disk\n"
        "    try: detach it\n"
        "the device suid1 looks shared: a: it has data there, and no guest takes it along\n"
        "    try: qemu-esd device move suid1 b, then: qemu-esd device settle suid1"
    )


def test_nothing_to_do() -> None:
    assert drawn(render_evacuation.plan_picture(EvacuationPlan(ORDER, ()))) == "no guest runs on a, and none needs it"


def test_a_refusal() -> None:
    told = drawn(render_evacuation.refusal(PLAN), 120)
    assert told.startswith("error: not everything of a can move:\nodd cannot move: a: it has a floppy disk\n")
    assert told.endswith(
        "Nothing was touched.\n  try: mend what is named; or, to leave that where it is, add: --skip-refused"
    )


def test_the_plan_as_json() -> None:
    told = json.loads(json.dumps(render_evacuation.plan_json(PLAN)))
    assert [(each["vm"], each["action"], each["host"]) for each in told["guests"]] == [
        ("db", "settle", "c"), ("odd", "refused", None), ("vm", "move", "b"),
    ]  # fmt: skip
    assert told["guests"][2]["forecast"]["worst"] == 128 * MIB
    assert told["closed"]["c"][0]["hint"] == "install it"


FATES = (
    Fate("db", Whereabouts.SETTLED, "c", None, None, "qemu-esd release db"),
    Fate("odd", Whereabouts.STAYS, "a", None, "a: it has a floppy disk", "detach it"),
    Fate("vm", Whereabouts.NEEDS_HOST, "b", 46.4, None, "qemu-esd settle vm"),
)


def test_an_outcome() -> None:
    assert drawn(render_evacuation.outcome(Evacuated("a", False, FATES, ("suid1",)), "qemu-esd evacuate a b")) == (
        "guest  on                      stood still  next\n"
        "db     c   settled                          qemu-esd release db\n"
        "odd    a   has not moved                    see below\n"
        "vm     b   moved, and needs a  46 ms        qemu-esd settle vm\n"
        "\n"
        "odd: a: it has a floppy disk\n"
        "  try: detach it\n"
        "the device suid1 has data on a\n"
        "a is not free yet: it must not be switched off."
    )
    free = drawn(render_evacuation.outcome(Evacuated("a", True, FATES[:1]), "qemu-esd evacuate a b"))
    assert free.endswith("\n\nNothing depends on a any more: it may be switched off.")


def listener(*events: tuple[str, State]) -> Listener:
    hearing = Listener(ORDER, ask=False)
    asyncio.run(hearing.agree(PLAN))
    for vm, event in events:
        hearing(vm, event)
    return hearing


def test_what_a_stop_has_led_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["qemu-esd", "evacuate", "a", "b", "c"])
    early = Listener(ORDER, ask=False).interrupted()
    assert (type(early), early.what) == (EsdError, "stopped, and nothing was touched")
    before = listener(("vm", State.PREPARING), ("vm", State.ROLLED_BACK)).interrupted()
    assert (type(before), before.what) == (
        RolledBackError,
        "stopped: db runs on c, and needs a; vm runs on a as before",
    )
    after = listener(("vm", State.COMMITTED), ("db", State.SETTLED)).interrupted()
    assert (type(after), after.what) == (UnfinishedError, "stopped: db runs on c; vm runs on b, and needs a")
    assert type(listener(("vm", State.PREPARING), ("db", State.SETTLED)).interrupted()) is UnfinishedError
    assert after.hint == f"to go on: {evacuating.again()}" == "to go on: qemu-esd evacuate a b c"


def test_several_guests_of_which_one_fails(capsys: pytest.CaptureFixture[str]) -> None:
    async def work(vm: str) -> GuestView:
        if vm == "bad":
            raise RefusedError("there is no guest bad")
        return of_absent(vm, "a", "shut off", None)

    alone = asyncio.run(several.side_by_side(["bad"], work))
    with pytest.raises(RefusedError, match="no guest bad"):
        several.tell(alone, as_json=True)
    with pytest.raises(Exception) as end:
        several.tell(asyncio.run(several.side_by_side(["vm", "bad"], work)), as_json=True)
    assert getattr(end.value, "exit_code", None) == 3
    told = capsys.readouterr()
    assert [guest["vm"] for guest in json.loads(told.out)["vms"]] == ["vm"]
    assert "error: there is no guest bad" in told.err
    several.tell(asyncio.run(several.side_by_side(["vm"], work)), as_json=True)
    assert json.loads(capsys.readouterr().out)["vm"] == "vm"
