"""redirect: what is read comes from the source every time; what is written stays where the guest is."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd.graph.handlers import overlays
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import State
from tests.integration.support import content
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet

pytestmark = pytest.mark.lab


async def test_story(fleet: Fleet, tmp_path: Path) -> None:
    vda, vdb = Drive("vda", 7), Drive("vdb", 9, "b.qcow2", size=24 * MIB, fill="holes")
    guest = await fleet.boot(vda, vdb, load="esd.mode=verify esd.rate=200 esd.area=4M")
    await guest.is_well()

    told = await guest.migrate(fleet.b, Handler.REDIRECT)

    assert [(disk.handler, disk.needs_source) for disk in told.disks] == [("redirect", True)] * 2
    assert told.state == State.HANDED_OVER
    assert fleet.a.qemus("vm1") == ()
    await guest.is_well()
    await guest.pause()
    before = fleet.a.sent_bytes(fleet.b)
    await guest.recheck()
    await guest.recheck()
    assert fleet.a.sent_bytes(fleet.b) - before > 2 * vda.size * 3 // 4
    for drive in guest.drives:
        source = content.flatten(drive.source(fleet.a, told.id), tmp_path / "source")
        target = content.flatten(content.over(guest.member(drive), drive.source(fleet.a, told.id)), tmp_path / "target")
        written = content.later_writes(source, target)
        assert content.clusters(content.allocated(guest.member(drive)), overlays.CLUSTER) == {
            offset // overlays.CLUSTER for offset in written
        }
        assert content.crc(target) == await guest.crc(drive)
    now = {disk.disk: disk for disk in (await guest.look()).disks}
    for drive in guest.drives:
        held = content.allocated(guest.member(drive))
        assert now[drive.id].local_bytes == sum(length for _, length in held)
    await guest.resume()
    await fleet.finish(guest)
