"""Faults by phases: something dies at a moment of a migration, and then is done what `status` says, and nothing else.

All rows by `tasks.py faults`, some of them by the ordinary tests. A row asserts: never two copies; the guest runs on
one host in the end; what it had flushed is there, and the verifying load saw nothing wrong as long as its QEMU lived;
nothing is left over.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from images.pattern import MIB
from qemu_esd.errors import EsdError
from qemu_esd.model.policy import Handler
from tests.faults import report
from tests.faults.rows import MOMENTS, Outcome, What, led_by_status, marked_guest, marks
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import running_on
from tests.integration.support.machine import Process, ended, kill

pytestmark = pytest.mark.lab

VICTIMS: dict[str, Callable[[Fleet], tuple[Process, ...]]] = {
    "source QEMU": lambda fleet: fleet.a.qemus("vm1"),
    "target QEMU": lambda fleet: fleet.b.qemus("vm1"),
    "path handler": lambda fleet: fleet.a.path_handlers(),
    "ssh to the source": lambda fleet: fleet.a.ssh_sessions(),
    "ssh to the target": lambda fleet: fleet.b.ssh_sessions(),
}
# The source's QEMU has ended by then.
IMPOSSIBLE = {("source QEMU", "handed over"), ("source QEMU", "settling")}
ROWS = [(victim, moment) for victim in VICTIMS for moment in MOMENTS if (victim, moment) not in IMPOSSIBLE]
SAMPLE = {
    ("source QEMU", "memory moves"),
    ("target QEMU", "running"),
    ("path handler", "committed"),
    ("ssh to the source", "stopped"),
    ("ssh to the target", "committed"),
}
CHOSEN = ROWS if os.environ.get("ESD_FAULTS") == "all" else sorted(SAMPLE)


@pytest.mark.parametrize(("victim", "moment"), CHOSEN, ids=lambda word: word.replace(" ", "-"))
async def test_something_dies(fleet: Fleet, victim: str, moment: str) -> None:
    guest, before = await marked_guest(fleet)
    outcome = await migrate(fleet, guest, victim, moment)
    assert len(await running_on(fleet.machines, "vm1")) <= 1
    await led_by_status(fleet, guest, outcome)
    assert await running_on(fleet.machines, "vm1") == [guest.machine.name]
    if outcome.died:
        await guest.console.wait("ready")
    else:
        await guest.is_well()
    assert await marks(guest) == before
    recovered = ", ".join(outcome.commands) or "nothing"
    report.note(report.Line(f"SIGKILL {victim}", moment, outcome.said, recovered, guest.machine.name))
    await fleet.finish(guest)


async def migrate(fleet: Fleet, guest: Guest, victim: str, moment: str) -> Outcome:
    """The migration with its fault."""
    outcome, killed = Outcome(), list[Process]()

    def hear(what: What) -> None:
        if not killed and MOMENTS[moment](what):
            killed.extend(VICTIMS[victim](fleet))
            outcome.died = [process.pid for process in killed] == owner(fleet, moment)
            for process in killed:
                kill(process.pid)

    try:
        await guest.migrate(fleet.b, Handler.BACKGROUND, report=hear, bandwidth=4 * MIB)
    except EsdError as error:
        outcome.said = f"{type(error).__name__} ({error.exit_status})"
        print(error, "|", error.hint)
    assert killed, "the moment never came"
    for process in killed:
        await ended(process.pid)
    return outcome


def owner(fleet: Fleet, moment: str) -> list[int]:
    """The QEMU that the guest is lost with at that moment."""
    order = list(MOMENTS)
    machine = fleet.a if order.index(moment) < order.index("committed") else fleet.b
    return [process.pid for process in machine.qemus("vm1")]
