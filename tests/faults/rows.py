"""What rows of the fault table share: a guest with marks on its disks, moments of its move, and what comes then."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from images.pattern import MIB
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Measured, State
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest

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


@dataclass
class Outcome:
    """What a row comes to."""

    died: bool = False
    said: str = "done"
    commands: tuple[str, ...] = ()


async def marked_guest(fleet: Fleet) -> tuple[Guest, list[tuple[int, str]]]:
    """A guest under its verifying load that has written and flushed its marks, and what it reads there."""
    guest = await fleet.boot(VDA, VDB, load=LOAD)
    for drive in guest.drives:
        for place in MARKS:
            assert await guest.write(drive, *place) == 0
    await guest.sync()
    return guest, await marks(guest)


async def marks(guest: Guest) -> list[tuple[int, str]]:
    """What it reads where it had written: (errno, checksum)."""
    lines = [await guest.ask(f"read {drive.id} {at} {length}") for drive in guest.drives for at, length in MARKS]
    return [(line.number("errno"), line.values["crc"]) for line in lines]


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
