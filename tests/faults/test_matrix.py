"""Faults by phases: something dies at a moment of a migration, and then is done what `status` says, and nothing else.

All rows by `tasks.py faults`, some of them by the ordinary tests. A row asserts: never two copies; the guest runs on
one host in the end; what it had flushed is there, and the verifying load saw nothing wrong as long as its QEMU lived;
nothing is left over.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from images.pattern import MIB
from qemu_esd.errors import EsdError
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import Measured, State
from qemu_esd.phases.context import Progress
from tests.faults import report
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import running_on
from tests.integration.support.machine import Process, ended, kill

pytestmark = pytest.mark.lab

VDA, VDB = Drive("vda", 7, size=16 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1)
LOAD = "esd.mode=verify esd.rate=200 esd.area=1M esd.spread=0"
# Outside of where the load works: written and flushed before the fault.
MARKS = ((3 * MIB + 512, 512), (5 * MIB, 64 << 10), (7 * MIB - 4096, 8192))

What = State | Measured | Progress
MOMENTS: dict[str, Callable[[What], bool]] = {
    "prepared": lambda what: isinstance(what, Measured) and what.name == "prepared",
    "memory moves": lambda what: isinstance(what, Progress) and what.what == "RAM",
    "stopped": lambda what: what is State.SWITCHING,
    "committed": lambda what: what is State.COMMITTED,
    "running": lambda what: what is State.RUNNING,
    "handed over": lambda what: what is State.HANDED_OVER,
    "settling": lambda what: isinstance(what, Progress) and what.what == "vda",
}
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


@dataclass
class Outcome:
    """What a row comes to."""

    died: bool = False
    said: str = "done"
    commands: tuple[str, ...] = ()


@pytest.mark.parametrize(("victim", "moment"), CHOSEN, ids=lambda word: word.replace(" ", "-"))
async def test_something_dies(fleet: Fleet, victim: str, moment: str) -> None:
    guest = await fleet.boot(VDA, VDB, load=LOAD)
    for drive in guest.drives:
        for place in MARKS:
            assert await guest.write(drive, *place) == 0
    await guest.sync()
    before = await marks(guest)
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


async def led_by_status(fleet: Fleet, guest: Guest, outcome: Outcome) -> None:
    """Do what `status` says until it has nothing more to say, as somebody would who knows nothing else."""
    for _ in range(4):
        told = await say("status", "vm1")
        assert told.status == 0, told
        found = re.search(r"qemu-esd (resume \w+|rollback \w+|vm start \S+|vm cont \S+)", told.out)
        if found is None:
            break
        words = shlex.split(found[1])
        done = await say(*words)
        print(words, done)
        outcome.commands += (f"{' '.join(words[:-1])} ({done.status})",)
    seen = (await say("status", "vm1", "--json")).json["vms"][0]
    machine = next(each for each in fleet.machines if each.name == seen["host"])
    if outcome.died or machine != guest.machine:
        guest.leave_terminal()
    guest.machine, guest.generation = machine, seen["generation"]
    guest.listen()


async def marks(guest: Guest) -> list[tuple[int, str]]:
    """What it reads where it had written: (errno, checksum)."""
    lines = [await guest.ask(f"read {drive.id} {at} {length}") for drive in guest.drives for at, length in MARKS]
    return [(line.number("errno"), line.values["crc"]) for line in lines]
