"""The way home, broken off: whatever dies at whatever moment, the guest's data is what it was, and `settle` goes on."""

from __future__ import annotations

import os
import signal

import pytest

from images.pattern import MIB
from qemu_esd.model.policy import Handler
from tests.faults import report
from tests.faults.rows import VDA, VDB, marked_guest, marks
from tests.integration.support.commands import say, say_and_die
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import running_on
from tests.integration.support.machine import STATE, ended
from tests.integration.test_way_home import bases
from tests.support.small_disk import small_disk

pytestmark = pytest.mark.lab

KILLED = -signal.SIGKILL
# All of them by `tasks.py faults`; the ordinary tests take a sample.
STEP = 1 if os.environ.get("ESD_FAULTS") == "all" else 9


async def came_home(fleet: Fleet) -> tuple[Guest, list[tuple[int, str]]]:
    """A guest that has written on B and is back, not settled yet; and what it reads where it has written."""
    guest, _ = await marked_guest(fleet)
    await guest.migrate(fleet.b, Handler.BACKGROUND)
    for drive in guest.drives:
        assert await guest.write(drive, 6 * MIB + 4096, 64 << 10) == 0
    await guest.sync()
    await guest.migrate(fleet.a, Handler.REDIRECT)
    return guest, await marks(guest)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["command", "question"])
async def test_the_controller_is_killed_while_it_settles(fleet: Fleet, kind: str) -> None:
    """Again and again, one step later each time. The guest never notices."""
    guest, before = await came_home(fleet)
    at = STEP
    while (said := await say_and_die(f"{kind}:{at}", "settle", "vm1")).status == KILLED:
        await guest.is_well()
        at += STEP
    assert said.status == 0, said
    assert at > 2 * STEP
    assert await marks(guest) == before
    report.note(
        report.Line(f"SIGKILL controller, {at // STEP - 1} times", "settling at home", "-9", "settle (0)", "hostA")
    )
    await ends_at_home(fleet, guest)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["command", "question"])
async def test_the_guest_dies_with_its_controller(fleet: Fleet, kind: str) -> None:
    """It is started again, from the link or from its old image, as far as it had come."""
    guest, before = await came_home(fleet)
    at = STEP
    while (said := await say_and_die(f"{kind}:{at}", "settle", "vm1")).status == KILLED:
        pid = guest.qemu().pid
        guest.kill()
        await ended(pid)
        guest.leave_terminal()
        started = await say("vm", "start", "vm1")
        assert started.status == 0, started
        await guest.settle_in(booted=True)
        assert await marks(guest) == before
        at += 2 * STEP
    assert said.status == 0, said
    assert await marks(guest) == before
    lost = f"SIGKILL controller and target QEMU, {at // STEP // 2} times"
    report.note(report.Line(lost, "settling at home", "-9", "vm start (0), settle (0)", "hostA"))
    await ends_at_home(fleet, guest, knows=False)


async def test_there_is_no_room_to_keep_what_has_changed(fleet: Fleet) -> None:
    """The host that the guest leaves is full: it leaves all the same, with all of its data."""
    with small_disk(fleet.b, f"{STATE}/disks", "192M") as room:
        guest, before = await marked_guest(fleet)
        await guest.migrate(fleet.b, Handler.BACKGROUND)
        room.fill()
        # For the notes beside what is put aside.
        room.leave("16K")
        await guest.migrate(fleet.a, Handler.BACKGROUND)
        assert await marks(guest) == before
        assert [len(bases(guest, drive)) for drive in (VDA, VDB)] == [0, 0]
        report.note(report.Line("source full", "all, on the way home", "done", "nothing", "hostA"))
        await guest.pause()
        await guest.recheck()
        await fleet.finish(guest)


async def ends_at_home(fleet: Fleet, guest: Guest, *, knows: bool = True) -> None:
    """On its old images. After a boot its load does not know (`knows`) any more what it had written."""
    assert await running_on(fleet.machines, "vm1") == ["hostA"]
    if knows:
        await guest.pause()
        await guest.recheck()
    assert [len(bases(guest, drive)) for drive in (VDA, VDB)] == [1, 1]
    await fleet.finish(guest)
