"""The quick maps, of overlay and link apart, say the same as the slow one, of the overlay with all below it."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from images.pattern import MIB
from qemu_esd import api, nbd
from qemu_esd.model.policy import Handler
from qemu_esd.nbd import Where
from qemu_esd.phases import windows
from qemu_esd.phases.station import Station
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet

pytestmark = pytest.mark.lab


async def through_one_window(station: Station, suid: str) -> nbd.Residency:
    """As the overlay itself tells of all that is below it."""
    async with windows.look(station.host, station.sockets.nbd, suid) as whole:
        maps = await whole.map()
        return nbd.residency(maps[nbd.ALLOCATION_DEPTH], maps[nbd.BASE_ALLOCATION])


async def test_the_same_as_the_slow_map(fleet: Fleet) -> None:
    vda, vdb = Drive("vda", 7, size=2048 * MIB, fill="sparse"), Drive("vdb", 9, "b.qcow2", size=64 * MIB, fill="holes")
    guest = await fleet.boot(vda, vdb, load="esd.mode=idle")
    await guest.migrate(fleet.b, Handler.ON_DEMAND)
    for drive in (vda, vdb):
        assert await guest.read(drive, 5 * MIB, MIB) == 0
        assert await guest.write(drive, drive.size - 3 * MIB, 64 << 10) == 0
    await guest.sync()

    async with api.open_guest("vm1", "hostB") as station:
        place = station.host, station.sockets.nbd
        for row in station.record.disks:
            slow = await through_one_window(station, row.suid)
            assert await windows.residency(*place, row.suid) == slow
            quick = await windows.glance(*place, row.suid, row.suid)
            assert quick == slow
            assert {part.state for part in quick.ranges} == set(Where)
            assert sum(part.length for part in quick.ranges) == row.size
            # Another time the link is not asked.
            assert await windows.glance(*place, row.suid, row.suid) == slow

    file = fleet.b.path("/tmp/map.svg")
    told = await say("map", "vm1", "vda", "--svg", str(file))
    assert (told.status, told.out) == (0, "")
    picture = ElementTree.fromstring(file.read_text())
    kinds = {str(each.get("class")) for each in picture.iter("{http://www.w3.org/2000/svg}rect")}
    assert {"remote", "hole"} < kinds
    file.unlink()
    await fleet.finish(guest)
