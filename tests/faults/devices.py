"""A guest on a device that looks shared, on three hosts: what its tests have in common."""

from __future__ import annotations

import asyncio
import signal

from images.pattern import MIB
from qemu_esd import guests
from qemu_esd.hosts import lab
from qemu_esd.hosts.connect import open_hosts
from tests.faults import report
from tests.integration.support.commands import say, say_and_die
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.inside import tell
from tests.integration.support.machine import Machine, ended, kill
from tests.integration.support.shared import Bare, made

SUID = "d1"
VDA = Drive("vda", 7, size=16 * MIB)
# Of the rest of the disk nobody reads but who says so.
WRITES = "esd.mode=verify esd.rate=200 esd.mix=60/40/0 esd.area=4M esd.spread=0"
READS = "esd.mode=verify esd.rate=200 esd.mix=10/0/90"
# Longer than a guest's disk waits for its path handler, and that one for another host.
LONG_SECONDS = 60.0
# For so long a path handler that has come back looks for guests to be told to go on.
FACE_LOOKS = 12.0
FRESH = (6 * MIB, MIB // 2)
BACK_SECONDS = 60.0


async def on_device(fleet: Fleet, load: str = READS) -> Bare:
    """A guest on hostB, while hostA has the authority, and hostC is a host of the device too."""
    await made(SUID, VDA, fleet.a, fleet.b, fleet.c)
    guest = Bare(fleet.b, SUID, VDA)
    await guest.boot(fleet.image, load)
    await guest.is_well()
    return guest


async def finish(fleet: Fleet, guest: Bare, fault: str, phase: str, command: str, then: str) -> None:
    """All that was written is right, nothing is left, and a line for the table."""
    await guest.pause()
    await guest.recheck()
    report.note(report.Line(fault, phase, command, then, guest.machine.name))
    await guest.power_off()
    await forget(fleet, guest)


async def forget(fleet: Fleet, guest: Bare) -> None:
    said = await say("device", "delete", SUID, "--yes")
    assert said.status == 0, said
    async with open_hosts() as hosts:
        await guests.forget(hosts, guest.name, [machine.name for machine in fleet.machines])
    fleet.check_empty()


async def state_of(guest: Bare) -> str:
    return str((await tell(guest, "query-status"))["status"])


async def until(guest: Bare, wanted: str, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while await state_of(guest) != wanted:
            await asyncio.sleep(0.5)


async def shown() -> tuple[str, bool, int]:
    """Who has the authority, whether something was broken off, how many bytes are elsewhere."""
    told = (await say("device", "show", SUID, "--json")).json
    return told["authority"], told["broken_off"], told["remote_bytes"]


async def power_cut(fleet: Fleet, machine: Machine) -> Machine:
    """As if by the power switch: all that ran is gone, and all in /run. The host is up again."""
    init = machine.lab.init
    assert init is not None
    kill(init.pid)
    await ended(init.pid)
    (fleet.a, fleet.b, fleet.c) = fleet.machines = tuple(Machine(host) for host in (await lab.up(3)).lab.hosts)
    return next(each for each in fleet.machines if each.name == machine.name)


async def killed_everywhere(guest: Bare, what: str, words: tuple[str, ...]) -> int:
    """How often. What one has done the next finds done; when the authority has moved it begins anew, once."""
    number, kills, authority = 1, 0, (await shown())[0]
    while (said := await say_and_die(f"{what}:{number}", "device", *words)).status == -signal.SIGKILL:
        kills, number, before = kills + 1, number + 1, authority
        authority = (await shown())[0]
        if authority != before:
            number = 1
        if kills % 5 == 0:
            await guest.is_well()
    assert said.status == 0, said
    assert (await shown())[1] is False
    return kills
