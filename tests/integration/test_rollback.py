"""What fails before the commit leaves the guest where it ran, undisturbed, and nothing anywhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.errors import RolledBackError
from qemu_esd.model.policy import Handler
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Measured, State
from qemu_esd.model.request import Request
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import qemu_facts
from tests.integration.support.machine import Process, kill

pytestmark = pytest.mark.lab

What = State | Measured | Progress
DRIVES = (Drive("vda", 7, size=16 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1))


async def test_what_dies_before_the_commit(fleet: Fleet) -> None:
    """The target's QEMU, prepared and at the switchover; the path handler, prepared. And at last it can go."""
    guest = await fleet.boot(*DRIVES)
    await guest.is_well()
    await rolls_back(fleet, guest, when("prepared"), lambda: fleet.b.qemu("vm1"))
    await rolls_back(fleet, guest, when(State.SWITCHING), lambda: fleet.b.qemu("vm1"))
    await rolls_back(fleet, guest, when(State.SWITCHING), lambda: fleet.a.path_handlers()[0])
    await guest.migrate(fleet.b, Handler.BACKGROUND)
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    await fleet.finish(guest)


def when(moment: State | str) -> Callable[[What], bool]:
    return lambda what: what == moment or (isinstance(what, Measured) and what.name == moment)


async def rolls_back(fleet: Fleet, guest: Guest, moment: Callable[[What], bool], victim: Callable[[], Process]) -> None:
    before, inside = places(fleet), await qemu_facts(guest)
    killed: list[Process] = []

    def report(what: What) -> None:
        if moment(what) and not killed:
            killed.append(victim())
            kill(killed[0].pid)

    with pytest.raises(RolledBackError) as error:
        await guest.migrate(fleet.b, Handler.ON_DEMAND, report=report)
    assert killed
    assert (error.value.exit_status, bool(error.value.hint)) == (1, True)
    await guest.is_well()
    assert places(fleet) == before
    assert await qemu_facts(guest) == inside


def places(fleet: Fleet) -> list[set[str]]:
    """What there is on the hosts: a running guest changes its disks, but makes nothing."""
    return [
        {path for path in machine.files("/srv", "/var/lib/qemu-esd", "/run/qemu-esd") if not is_room(path)}
        | {str(process) for process in machine.processes()}
        | machine.listening()
        for machine in fleet.machines
    ]


def is_room(path: str) -> bool:
    """A folder of ours that stays when it is empty."""
    return path.rpartition("/")[2] in ("vm", "link", "unit", "disks")


async def test_interrupted_before_the_commit(fleet: Fleet) -> None:
    """Ctrl-C while RAM moves."""
    guest = await fleet.boot(*DRIVES, load="esd.mode=verify,dirty esd.rate=100 esd.dirty=32 esd.dirtyrate=0")
    before, moving = places(fleet), asyncio.Event()

    def report(what: What) -> None:
        if isinstance(what, Progress):
            moving.set()

    request = Request("vm1", "hostB", Handler.ON_DEMAND, source="hostA", downtime_ms=1)
    task = asyncio.ensure_future(api.migrate(request, report))
    await asyncio.wait_for(moving.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await guest.is_well()
    assert places(fleet) == before
