"""Further moves while the data is still elsewhere: on to a third host, and back to the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import State
from tests.integration.support import content
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.test_way_home import bases, disk

pytestmark = pytest.mark.lab

LOAD = "esd.mode=verify esd.rate=200 esd.area=1M"


async def test_a_second_hop_before_the_first_is_settled(fleet: Fleet, tmp_path: Path) -> None:
    """A → B → C: C reads through B what only A has."""
    vda, vdb = Drive("vda", 7), Drive("vdb", 9, "b.qcow2", size=24 * MIB, fill="holes")
    guest = await fleet.boot(vda, vdb, load=LOAD)
    seen = await guest.disks()
    await guest.migrate(fleet.b, Handler.ON_DEMAND)
    await guest.is_well()

    told = await guest.migrate(fleet.c, Handler.ON_DEMAND, disk_handlers={"vdb": Handler.REDIRECT})

    assert [(disk.handler, disk.needs_source) for disk in told.disks] == [("on-demand", True), ("redirect", True)]
    assert (fleet.a.qemus("vm1"), fleet.b.qemus("vm1")) == ((), ())
    assert [len(machine.path_handlers()) for machine in fleet.machines] == [1, 1, 0]
    assert (await guest.look()).upstream == ("hostB", "hostA")
    await guest.sees(seen)
    await guest.is_well()
    await settles(fleet, guest, tmp_path)


async def test_the_way_back_before_it_is_settled(fleet: Fleet, tmp_path: Path) -> None:
    """A → B → A: on A again, it reads from B what was written there, and B from A what never left it."""
    vda, vdb = Drive("vda", 7), Drive("vdb", 9, "b.qcow2", size=24 * MIB, fill="holes")
    guest = await fleet.boot(vda, vdb, load=LOAD)
    await guest.migrate(fleet.b, Handler.REDIRECT)
    await guest.is_well()

    await guest.migrate(fleet.a, Handler.REDIRECT)

    assert (guest.generation, (await guest.look()).upstream) == (2, ("hostB", "hostA"))
    assert len(fleet.a.qemus("vm1")) == 1
    await guest.is_well()
    await settles(fleet, guest, tmp_path)


async def test_there_and_back_settled_each_time(fleet: Fleet, tmp_path: Path) -> None:
    vda = Drive("vda", 7, size=16 * MIB)
    guest = await fleet.boot(vda, load=LOAD)
    await guest.migrate(fleet.b, Handler.BACKGROUND)
    await guest.is_well()
    await guest.migrate(fleet.a, Handler.BACKGROUND)
    await guest.is_well()
    assert (await guest.look()).left_behind == ("hostA", "hostB")
    assert len(bases(guest, vda)) == 1
    await settles(fleet, guest, tmp_path)


async def settles(fleet: Fleet, guest: Guest, tmp_path: Path) -> None:
    """With all of the guest's data on one host, nothing of it is anywhere else, and its content is what it must be."""
    settled = await api.settle_guest("vm1", guest.machine.name, lambda *_: None)
    assert (settled.state, settled.upstream) == (State.SETTLED, ())
    assert [machine.path_handlers() for machine in fleet.machines] == [(), (), ()]
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    for drive in guest.drives:
        target = _flat(guest, drive, tmp_path / "target")
        assert len(content.check_content(target, drive)) > 0
        assert content.crc(target) == await guest.crc(drive)
    await fleet.finish(guest)
    for drive in guest.drives:
        if not bases(guest, drive):
            content.check_standalone(guest.member(drive))


def _flat(guest: Guest, drive: Drive, into: Path) -> Path:
    """What the disk holds; at home that is partly in the image that was left there."""
    if bases(guest, drive):
        return disk(guest, drive, into)
    return content.flatten(content.image(guest.member(drive), "qcow2"), into)
