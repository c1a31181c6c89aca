"""`--bandwidth auto`: QEMU's job gets another limit as the guest bears it, and the move comes to its end anyway."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from itertools import pairwise

import pytest

from images.pattern import MIB
from qemu_esd import api, mover_process
from qemu_esd.model import pace
from qemu_esd.model.pace import FLOOR, START, Latencies, Pace
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import State
from qemu_esd.qmp import latency
from qemu_esd.view import GuestView
from tests.integration.support import content
from tests.integration.support.commands import end, say, start
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.links import slow

pytestmark = pytest.mark.lab

# While something hot comes, the job has half of the limit.
HELD = (FLOOR, FLOOR // 2)
LOAD = "esd.mode=verify esd.rate=300 esd.area=1M esd.mix=10/10/80"


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The limits of a move, one after the other."""
    told, after = [Pace().limit], pace.after

    def heard(before: Pace, seen: Latencies, rate: int) -> Pace:
        adapted = after(before, seen, rate)
        told.append(adapted.limit)
        return adapted

    monkeypatch.setattr("qemu_esd.phases.pace.after", heard)
    return told


async def test_under_load_it_settles_and_nothing_is_lost(fleet: Fleet, limits: list[int]) -> None:
    vda, vdb = Drive("vda", 7, size=48 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, fill="holes", chain=1)
    guest = await fleet.boot(vda, vdb, load=LOAD)

    told = await guest.migrate(fleet.b, Handler.BACKGROUND, bandwidth="auto")

    assert [(disk.handler, disk.remote_bytes) for disk in told.disks] == [("local", 0)] * 2
    assert limits[:2] == [FLOOR, START]
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    await nobody_counts()
    await fleet.finish(guest)
    for drive in guest.drives:
        content.check_standalone(guest.member(drive))


async def nobody_counts() -> None:
    """The guest's devices are as they were."""
    async with api.open_guest("vm1") as station:
        assert station.record.bandwidth == "auto"
        assert await latency.counted(station.qemu, [disk.qdev for disk in station.guest.disks]) == {}


async def test_a_guest_that_suffers_slows_it_down_to_the_floor(
    fleet: Fleet, limits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no further. What the guest bears at all is a matter of the machine: here it bears nothing, and then much."""
    vda = Drive("vda", 7, size=96 * MIB)
    guest = await fleet.boot(vda, load=LOAD)
    await guest.migrate(fleet.b, Handler.BACKGROUND, bandwidth="auto", until_settled=False)
    monkeypatch.setattr(pace, "FACTOR", 0)
    moving = asyncio.ensure_future(api.follow_policy("vm1", lambda _: None))

    seen = await looked_at(guest, lambda seen: limits[-3:] == [FLOOR] * 3 and seen.job is not None)

    assert seen.bandwidth == "auto"
    assert seen.job is not None and seen.job.limit in HELD
    adapted = limits[1:]
    assert adapted[0] == START
    # Between them are calm windows, which are at the floor before it is reached.
    assert all(later < earlier for earlier, later in pairwise(limit for limit in adapted if limit != FLOOR))
    monkeypatch.setattr(pace, "FACTOR", 1000)
    await moving
    assert max(limits[len(adapted) + 1 :]) > FLOOR
    await guest.is_well()
    await fleet.finish(guest)


async def looked_at(guest: Guest, wanted: Callable[[GuestView], bool]) -> GuestView:
    """As `status` sees it, when it is as wanted."""
    async with asyncio.timeout(150):
        while not wanted(seen := (await api.look_at_guests(guest.name))[0]):
            await asyncio.sleep(0.2)
        return seen


async def test_islands_in_a_sea_of_holes_are_found_by_the_map(fleet: Fleet, limits: list[int]) -> None:
    """With a limit too: the job would go through the holes at that limit, for hours."""
    vda = Drive("vda", 7, size=1 << 40, fill="none")
    guest = await fleet.boot(vda, load="esd.mode=verify esd.rate=200 esd.mix=50/50/0 esd.area=512k")
    await guest.is_well()
    for bandwidth, target in (("auto", fleet.b), (4 * MIB, fleet.a)):
        told = await guest.migrate(target, Handler.BACKGROUND, bandwidth=bandwidth)
        assert told.state == State.SETTLED
        await guest.is_well()
    await guest.pause()
    checked = await guest.ask("recheck")
    assert [checked.number(key) for key in ("err", "bad", "absent")] == [0, 0, 0]
    assert checked.number("ok") > 0
    await fleet.finish(guest)


async def test_detached_stopped_and_taken_over(fleet: Fleet) -> None:
    """Whoever goes on with the move finds in the guest's record how."""
    # It brings little over by itself, so that it moves for as long as all that is said here takes.
    guest = await fleet.boot(Drive("vda", 7, size=128 * MIB), load=LOAD.replace("300", "30"))
    tried = await say("migrate", "vm1", "hostB", "--policy", "background", "--bandwidth", "auto", "--dry-run", "--json")
    assert tried.json["plan"]["bandwidth"] == "auto"
    async with slow("hostA", "hostB", 4 * MIB):
        words = ("--policy", "background", "--bandwidth", "auto", "--detach", "--release", "--json")
        moved = await say("migrate", "vm1", "hostB", *words)
        assert moved.status == 0, moved.err
        guest.arrived(fleet.b)
        seen = await looked_at(guest, lambda seen: seen.job is not None)
        told = (await say("status", "vm1", "--json")).json["vms"][0]
        assert (told["bandwidth"], told["job"]["limit"] >= min(HELD)) == ("auto", True)
        assert "for the guest to bear it" in (await say("status", "vm1")).out

        assert (await say("policy", "vm1", "redirect")).status == 0
        assert mover_process.find("vm1") is None
        seen = await guest.look()
        assert (seen.job, seen.bandwidth) == (None, "auto")
        assert (await say("policy", "vm1", "background")).status == 0
        mover = mover_process.find("vm1")
        assert mover is not None
        # It goes on in QEMU when we are killed, at no less than half of the floor.
        await looked_at(guest, lambda seen: seen.job is not None)
        os.kill(mover.pid, signal.SIGKILL)
        left = await looked_at(guest, lambda seen: seen.problem is not None)
        assert left.problem is not None and "qemu-esd settle vm1" in left.problem
        assert left.job is not None and left.job.limit is not None and left.job.limit >= min(HELD)
        settling = await start("settle", "vm1", "--json")
    settled = await end(settling)
    assert settled.status == 0, settled.err
    await guest.is_well()
    await nobody_counts()
    await fleet.finish(guest)
