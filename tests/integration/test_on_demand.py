"""on-demand: what is read comes from the source, and stays."""

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

pytestmark = pytest.mark.lab

# Only the first MiBs are worked on, so that the test knows of the others that nobody has read them.
LOAD = "esd.mode=verify esd.rate=200 esd.mix=60/40/0 esd.area=4M esd.spread=0"
UNREAD, LENGTH = 8 * MIB, 4 * MIB
# What a link carries beside the data in a second or two: heads of replies, the watch, TCP.
CHATTER = 256 << 10


async def test_story(fleet: Fleet, tmp_path: Path) -> None:
    vda, vdb = Drive("vda", 7), Drive("vdb", 9, "b.qcow2", size=24 * MIB, fill="holes", chain=2)
    guest = await fleet.boot(vda, vdb, load=LOAD)
    seen = await guest.disks()
    await guest.is_well()

    told = await guest.migrate(fleet.b, Handler.ON_DEMAND)

    assert (told.committed, told.state, told.source, told.target) == (True, State.HANDED_OVER, "hostA", "hostB")
    assert [(disk.disk, disk.handler, disk.needs_source) for disk in told.disks] == [
        ("vda", "on-demand", True),
        ("vdb", "on-demand", True),
    ]
    assert fleet.a.qemus("vm1") == ()
    assert len(fleet.a.path_handlers()) == 1
    await guest.is_well()
    await guest.sees(seen)

    await guest.pause()
    await a_second_read_asks_nobody(fleet, guest, vda)
    await a_second_read_asks_nobody(fleet, guest, vdb)
    for drive in guest.drives:
        source = content.flatten(drive.source(fleet.a, told.id), tmp_path / "source")
        target = content.flatten(content.over(guest.member(drive), drive.source(fleet.a, told.id)), tmp_path / "target")
        assert len(content.later_writes(source, target)) > 0
    await guest.resume()

    settled = await api.settle_guest("vm1", "hostB", lambda *_: None)

    assert (settled.state, settled.link, settled.upstream) == (State.SETTLED, "none", ())
    assert [(disk.handler, disk.remote_bytes) for disk in settled.disks] == [("local", 0), ("local", 0)]
    assert fleet.a.path_handlers() == ()
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    for drive in guest.drives:
        source = content.flatten(drive.source(fleet.a, told.id), tmp_path / "source")
        target = content.flatten(content.image(guest.member(drive), "qcow2"), tmp_path / "target")
        assert len(content.later_writes(source, target)) > 0
        assert content.crc(target) == await guest.crc(drive)
    await fleet.finish(guest)
    for drive in guest.drives:
        content.check_standalone(guest.member(drive))


async def a_second_read_asks_nobody(fleet: Fleet, guest: Guest, drive: Drive) -> None:
    start = fleet.a.sent_bytes(fleet.b)
    assert await guest.read(drive, UNREAD, LENGTH) == 0
    first = fleet.a.sent_bytes(fleet.b)
    assert await guest.read(drive, UNREAD, LENGTH) == 0
    second = fleet.a.sent_bytes(fleet.b)
    assert first - start > LENGTH / 2
    assert second - first < CHATTER
