"""Devices that have moved on before they were settled, under a guest with a verifying load, while things fail."""

from __future__ import annotations

import asyncio

import pytest

from images.pattern import MIB
from qemu_esd.graph.nodes import RECONNECT_SECONDS
from tests.faults import report
from tests.faults.devices import (
    BACK_SECONDS,
    LONG_SECONDS,
    SUID,
    VDA,
    WRITES,
    finish,
    killed_everywhere,
    on_device,
    power_cut,
    shown,
    until,
)
from tests.faults.report import thorough
from tests.integration.support.commands import say
from tests.integration.support.fleet import Fleet
from tests.integration.support.links import cut
from tests.integration.support.shared import Bare, strike

pytestmark = pytest.mark.lab


async def on_a_chain(fleet: Fleet) -> Bare:
    """A guest on hostC, whose device reads from hostB what that one has, and from hostA by hostB what it has not."""
    guest = await on_device(fleet, WRITES)
    assert (await say("device", "move", SUID, "hostB")).status == 0
    await guest.is_well()
    await guest.move_plainly(fleet.c)
    assert (await say("device", "move", SUID, "hostC")).status == 0
    told = (await say("device", "show", SUID, "--json")).json
    assert (told["authority"], told["reads_from"], told["reads_beyond"]) == ("hostC", "hostB", ["hostA"])
    assert told["remote_bytes"] > VDA.size // 2
    await guest.is_well()
    return guest


async def test_it_moves_on_before_it_is_settled(fleet: Fleet) -> None:
    """Daemons are killed on each of the three hosts. It cannot go back to a host from which it reads, and says so."""
    guest = await on_a_chain(fleet)
    for host in "hostA", "hostB":
        plan = await say("evacuate", host, "hostC", "--dry-run", "--json")
        assert (plan.status, plan.json["devices"]) == (3, [SUID]), plan
    for place, machine in enumerate(fleet.machines, 8):
        for part in ("face", "gate"):
            strike(machine, SUID, part)
        assert await guest.read(VDA, place * MIB, MIB // 2) == 0
        await guest.is_well()
    for target in "hostA", "hostB":
        await guest.move_plainly(fleet.a if target == "hostA" else fleet.b)
        refused = await say("device", "move", SUID, target)
        hint = f"qemu-esd device settle {SUID} && qemu-esd device move {SUID} {target}"
        assert (refused.status, hint in " ".join(refused.err.split())) == (3, True), refused
        await guest.is_well()
    await guest.move_plainly(fleet.c)
    said = await say("device", "settle", SUID)
    assert said.status == 0, said
    assert await shown() == ("hostC", False, 0)
    await guest.is_well()
    told = (await say("device", "show", SUID, "--json")).json["left"]
    assert sorted(one["host"] for one in told) == ["hostA", "hostB"]
    assert (await say("device", "release", SUID)).status == 0
    await finish(fleet, guest, "daemons killed on three hosts", "device, moved on before it is settled", "-", "nothing")


@thorough
@pytest.mark.parametrize("lost", ["hostA", "hostB", "hostA and hostB"])
async def test_hosts_of_a_chain_lose_their_power(own_fleet: Fleet, lost: str) -> None:
    fleet = own_fleet
    guest = await on_a_chain(fleet)
    before = await shown()
    for name in lost.split(" and "):
        await power_cut(fleet, fleet.a if name == "hostA" else fleet.b)
    words = ("device", "restore", SUID) if "and" in lost else ("host", "restore", lost)
    told = await say(*words)
    assert told.status == 0, told
    guest.machine = fleet.c
    await until(guest, "running", BACK_SECONDS)
    await guest.is_well()
    assert (await shown())[:2] == before[:2]
    assert (await say("device", "settle", SUID)).status == 0
    fault = f"{lost} lose their power" if "and" in lost else f"{lost} loses its power"
    await finish(fleet, guest, fault, "device on hostC, hostB, hostA", "-", f"{words[0]} restore (0)")


@thorough
@pytest.mark.parametrize("ends", [("hostA", "hostB"), ("hostB", "hostC")])
async def test_a_way_of_a_chain_is_dead(fleet: Fleet, ends: tuple[str, str]) -> None:
    """Also where the host of the guest has no part in it: what it reads or writes there waits, and nobody tells that
    host when the way is there again."""
    guest = await on_a_chain(fleet)
    async with cut(*ends):
        settling = await say("device", "settle", SUID)
        print(settling)
        assert (settling.status, f"qemu-esd device settle {SUID}" in " ".join(settling.err.split())) == (4, True)
        # Of a cluster the rest of which is elsewhere.
        writing = asyncio.ensure_future(guest.write(VDA, 10 * MIB + 4096, 4096))
        if guest.machine.name in ends:
            await until(guest, "io-error", LONG_SECONDS)
        else:
            _, waiting = await asyncio.wait({writing}, timeout=2 * RECONNECT_SECONDS)
            assert waiting
    await until(guest, "running", BACK_SECONDS)
    assert await writing == 0
    assert await guest.read(VDA, 0, VDA.size) == 0
    await guest.is_well()
    assert (await say("device", "settle", SUID)).status == 0
    fault = f"link {ends[0]} - {ends[1]} cut for long"
    await finish(fleet, guest, fault, "device on hostC, hostB, hostA", f"settle ({settling.status})", "settle (0)")


@thorough
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("what", ["command", "question"])
async def test_moving_on_is_killed_anywhere(fleet: Fleet, what: str) -> None:
    guest = await on_device(fleet, WRITES)
    assert (await say("device", "move", SUID, "hostB")).status == 0
    await guest.move_plainly(fleet.c)
    for words in (("move", SUID, "hostC"), ("settle", SUID)):
        kills = await killed_everywhere(guest, what, words)
        fault = f"controller killed at each {what}"
        phase = f"device {words[0]}, before it is settled"
        report.note(report.Line(fault, phase, f"-9, {kills} times", "the same again (0)", "hostC"))
    assert await shown() == ("hostC", False, 0)
    await finish(fleet, guest, f"controller killed at each {what}", "device, moved on", "-", "nothing")
