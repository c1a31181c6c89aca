"""--no-local-space: the disk on the target is the image on the source, to read and to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import State
from tests.integration.support import content
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.machine import ended, kill

pytestmark = pytest.mark.lab


async def test_story(fleet: Fleet, tmp_path: Path) -> None:
    vda, vdb = Drive("vda", 7), Drive("vdb", 9, "b.qcow2", size=24 * MIB + 512, fill="holes", chain=1)
    guest = await fleet.boot(vda, vdb)
    seen = await guest.disks()

    told = await guest.migrate(fleet.b, Handler.REDIRECT, local_space=False)

    assert told.state == State.HANDED_OVER
    assert [(disk.handler, disk.local_bytes, disk.needs_source) for disk in told.disks] == [("redirect", 0, True)] * 2
    assert not any(path.endswith(".qcow2") for path in fleet.b.files("/srv", "/var/lib/qemu-esd"))
    await guest.is_well()
    await guest.sees(seen)
    (handler,) = fleet.a.path_handlers()
    kill(handler.pid)
    await ended(handler.pid)
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    for drive in guest.drives:
        image = content.flatten(drive.source(fleet.a, told.id), tmp_path / "image")
        assert len(content.check_content(image, drive)) > 0
        assert content.crc(image) == await guest.crc(drive)
    await guest.resume()

    # The way home: there its data has a place, and settles in it.
    await guest.migrate(fleet.a, Handler.BACKGROUND)

    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    await fleet.finish(guest)
    for drive in guest.drives:
        content.check_standalone(guest.member(drive))
