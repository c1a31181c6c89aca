"""The target's disk is full: the guest waits and loses nothing, and goes on when there is room."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from images.pattern import MIB
from qemu_esd.errors import RolledBackError
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import State
from tests.faults import report
from tests.faults.report import thorough
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import qemu_facts, running_on, tell
from tests.integration.support.machine import STATE
from tests.integration.test_rollback import places
from tests.support.small_disk import SmallDisk, small_disk

pytestmark = pytest.mark.lab

VDA, VDB = Drive("vda", 7, size=16 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1)
LOAD = "esd.mode=verify esd.rate=100 esd.area=1M esd.spread=0 esd.mix=50/50/0"
FRESH = (6 * MIB, MIB // 2)


@pytest.fixture
def room(fleet: Fleet) -> Iterator[SmallDisk]:
    """What overlays on hostB have."""
    with small_disk(fleet.b, f"{STATE}/disks", "192M") as disk:
        yield disk


@pytest.mark.parametrize("what", [pytest.param("read", marks=thorough), "write"])
async def test_a_guest_waits_for_room(fleet: Fleet, room: SmallDisk, what: str) -> None:
    """Also when it only reads, and what it has read is to be kept. It never sees an error."""
    guest = await fleet.boot(VDA, VDB, load=LOAD)
    await guest.migrate(fleet.b, Handler.ON_DEMAND)
    await guest.is_well()
    # Else the load may be the first to find no room, on either disk: `status` names the one that has stopped the guest.
    await guest.pause()
    room.fill()
    request = guest.read if what == "read" else guest.write
    waiting = asyncio.ensure_future(request(VDA, *FRESH))
    await stopped(guest)
    told = await say("status", "vm1")
    assert "vda has stopped it: no space is left for it on hostB; make room there" in told.out, told.out
    assert "qemu-esd vm cont vm1" in told.out
    early = await say("vm", "cont", "vm1")
    await stopped(guest)
    room.make_room()
    assert (await say("vm", "cont", "vm1")).status == 0
    assert await waiting == 0
    await guest.resume()
    await is_well(fleet, guest)
    note = f"vm cont ({early.status}), room, vm cont (0)"
    report.note(report.Line(f"target full, guest {what}s", "handed over", "-", note, "hostB"))
    await fleet.finish(guest)


@thorough
async def test_the_background_move_finds_no_room(fleet: Fleet, room: SmallDisk) -> None:
    """It says so, and begins again where it was."""
    guest = await fleet.boot(VDA, VDB, load=LOAD)
    await guest.migrate(fleet.b, Handler.BACKGROUND, until_settled=False)
    room.fill()
    full = await say("settle", "vm1")
    assert (full.status, "no space is left for vda; no space is left for vdb" in full.err) == (4, True), full
    told = (await say("status", "vm1", "--json")).json["vms"][0]
    assert told["state"] == "settling"
    assert all(disk["needs_source"] and disk["remote_bytes"] for disk in told["disks"])
    room.make_room()
    if told["run_state"] == "io-error":
        assert (await say("vm", "cont", "vm1")).status == 0
    settled = await say("settle", "vm1")
    assert settled.status == 0, settled
    await is_well(fleet, guest)
    for drive in guest.drives:
        await guest.crc(drive)
    report.note(report.Line("target full", "settling", f"settle ({full.status})", "room, settle (0)", "hostB"))
    await fleet.finish(guest)


@thorough
async def test_there_is_no_room_any_more_when_it_is_prepared(fleet: Fleet, room: SmallDisk) -> None:
    """There was when it was planned: rolled back, and nothing is left over."""
    guest = await fleet.boot(VDA, VDB, load=LOAD)
    before, inside = places(fleet), await qemu_facts(guest)

    def hear(what: object) -> None:
        if what is State.PREPARING:
            room.fill()

    with pytest.raises(RolledBackError, match=r"[Nn]o space left") as failed:
        await guest.migrate(fleet.b, Handler.ON_DEMAND, report=hear)
    assert "on hostA as before" in str(failed.value)
    room.make_room()
    assert await running_on(fleet.machines, "vm1") == ["hostA"]
    await guest.is_well()
    assert (places(fleet), await qemu_facts(guest)) == (before, inside)
    report.note(report.Line("target full", "preparing", "RolledBackError (1)", "nothing", "hostA"))
    await fleet.finish(guest, settle=False)


async def stopped(guest: Guest) -> None:
    async with asyncio.timeout(60):
        while (await tell(guest, "query-status"))["status"] != "io-error":
            await asyncio.sleep(0.1)


async def is_well(fleet: Fleet, guest: Guest) -> None:
    assert await running_on(fleet.machines, "vm1") == ["hostB"]
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
