"""The guest itself, or somebody at its monitor, does something while it is moved."""

from __future__ import annotations

import json
import os
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.errors import EsdError, RolledBackError
from qemu_esd.model.host import guest_sockets
from qemu_esd.model.policy import Handler
from tests.faults import report
from tests.faults.rows import LOAD, MOMENTS, VDA, Outcome, What, led_by_status, marked_guest, marks
from tests.integration.support.console import Terminal
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import PATHS, Guest
from tests.integration.support.inside import qemu_facts, running_on
from tests.integration.support.links import slow
from tests.integration.support.machine import Machine

pytestmark = pytest.mark.lab

USER = guest_sockets(PATHS, "vm1").user


def _command(machine: Machine, command: str, **arguments: object) -> Any:
    """By the monitor that is the user's: what is said there is done when the answer comes."""
    with socket.socket(socket.AF_UNIX) as user, user.makefile("rw") as lines:
        user.connect(str(machine.path(USER)))
        assert "QMP" in json.loads(lines.readline())
        for said in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
            lines.write(json.dumps(said))
            lines.flush()
            while "return" not in (answer := json.loads(lines.readline())):
                assert "error" not in answer, answer
        return answer["return"]


@dataclass(frozen=True)
class Deed:
    """`typed` at the console, or a `command` of the monitor.

    `boots`: the load starts anew. `ends`: its QEMU ends. `stops`: it is paused until somebody lets it go on.
    """

    typed: str = ""
    command: str = ""
    boots: bool = False
    ends: bool = False
    stops: bool = False


DEEDS = {
    "guest reboots": Deed("reboot", boots=True),
    "guest panics": Deed("panic", boots=True),
    "guest is reset": Deed(command="system_reset", boots=True),
    "guest shuts down": Deed("poweroff", boots=True, ends=True),
    "guest is paused": Deed(command="stop", stops=True),
}
ROWS = [(deed, moment) for deed in DEEDS for moment in ("memory moves", "running", "handed over", "settling")]
SAMPLE = [("guest is paused", "memory moves"), ("guest shuts down", "settling"), ("guest panics", "memory moves")]
CHOSEN = ROWS if os.environ.get("ESD_FAULTS") == "all" else SAMPLE


@pytest.mark.parametrize(("deed", "moment"), CHOSEN, ids=lambda word: word.replace(" ", "-"))
async def test_while_it_is_moved(fleet: Fleet, deed: str, moment: str) -> None:
    guest, before = await marked_guest(fleet)
    outcome = await migrate(fleet, guest, DEEDS[deed], moment)
    # Paused by somebody: that is respected, wherever the guest is now.
    if DEEDS[deed].stops:
        assert await running_on(fleet.machines, "vm1") == []
    await led_by_status(fleet, guest, outcome)
    assert await running_on(fleet.machines, "vm1") == [guest.machine.name]
    if DEEDS[deed].boots:
        # It does not know any more what it had written; the marks tell.
        await guest.console.wait("ready")
        assert (await guest.status()).number("err") == 0
    else:
        await guest.is_well()
    assert await marks(guest) == before
    recovered = ", ".join(outcome.commands) or "nothing"
    report.note(report.Line(deed, moment, outcome.said, recovered, guest.machine.name))
    await fleet.finish(guest)


async def migrate(fleet: Fleet, guest: Guest, deed: Deed, moment: str) -> Outcome:
    """The migration, with what happens to its guest."""
    outcome, done, terminals = Outcome(died=deed.ends), list[str](), list[Terminal]()
    has_left = moment != "memory moves"

    def hear(what: What) -> None:
        if done or not MOMENTS[moment](what):
            return
        done.append(moment)
        if deed.command:
            _command(fleet.b if has_left else fleet.a, deed.command)
        elif has_left:
            terminals.append(guest.terminal_on(fleet.b))
            terminals[0].type(deed.typed)
        else:
            guest.type(deed.typed)

    try:
        async with AsyncExitStack() as stack:
            if not has_left:
                # So that memory still moves when we hear that it does.
                await stack.enter_async_context(slow("hostA", "hostB", 32 * MIB))
            await guest.migrate(fleet.b, Handler.BACKGROUND, report=hear, bandwidth=4 * MIB)
    except EsdError as error:
        outcome.said = f"{type(error).__name__} ({error.exit_status})"
        print(error, "|", error.hint)
    assert done, "the moment never came"
    for terminal in terminals:
        guest.sit_at(terminal)
    return outcome


async def test_a_snapshot_while_memory_moves(fleet: Fleet) -> None:
    """Somebody else's: the target would miss what the guest has written since."""
    guest = await fleet.boot(VDA, load=LOAD)
    node, inside, done = _node(fleet.a), await qemu_facts(guest), list[What]()

    def hear(what: What) -> None:
        if not done and MOMENTS["memory moves"](what):
            done.append(what)
            file = {"node-name": node, "snapshot-file": "/srv/snapshot.qcow2", "snapshot-node-name": "theirs"}
            _command(fleet.a, "blockdev-snapshot-sync", **file)

    with pytest.raises(RolledBackError, match="vda was resized, snapshotted or taken out") as error:
        await guest.migrate(fleet.b, Handler.REDIRECT, report=hear)
    assert (done != [], error.value.exit_status) == (True, 1)
    assert fleet.b.qemus("vm1") == ()
    await guest.is_well()
    now = await qemu_facts(guest)
    assert {**now, "nodes": None} == {**inside, "nodes": None}
    report.note(report.Line("snapshot by somebody", "memory moves", "RolledBackError (1)", "nothing", "hostA"))
    fleet.a.remove("/srv/snapshot.qcow2")
    await fleet.finish(guest, settle=False)


async def test_a_disk_keeps_its_size_while_its_members_differ(fleet: Fleet) -> None:
    """QEMU itself refuses another one while anything is exported, on the source and on the target; then no more."""
    guest = await fleet.boot(VDA, load=LOAD)
    refused = list[str]()

    def hear(what: What) -> None:
        if not refused and MOMENTS["memory moves"](what):
            refused.append(_grow(fleet.a))

    await guest.migrate(fleet.b, Handler.ON_DEMAND, report=hear)
    refused.append(_grow(fleet.b))
    assert ["Permission conflict" in said for said in refused] == [True, True], refused
    await guest.is_well()
    await api.settle_guest("vm1", "hostB", lambda *_: None)
    assert _grow(fleet.b) == "done"
    await guest.is_well()
    report.note(report.Line("disk is resized", "memory moves, handed over", "refused by QEMU", "nothing", "hostB"))
    await fleet.finish(guest)


def _grow(machine: Machine) -> str:
    """What QEMU says to twice the size."""
    try:
        _command(machine, "block_resize", **{"node-name": _node(machine), "size": 2 * VDA.size})
    except AssertionError as error:
        return str(error)
    return "done"


def _node(machine: Machine) -> str:
    return next(str(row["inserted"]["node-name"]) for row in _command(machine, "query-block") if "inserted" in row)
