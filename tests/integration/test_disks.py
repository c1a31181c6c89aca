"""Every kind of disk keeps its identity and its content, in one guest and with a handler of its own each."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.pattern import MIB, SECTOR
from qemu_esd import api
from qemu_esd.model.policy import Handler
from tests.integration.support import content
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet

pytestmark = pytest.mark.lab

DRIVES = (
    # Smaller than a cluster at its end, and with a serial number.
    Drive("vda", 11, size=8 * MIB + 5 * SECTOR, serial="SN.of-the_first"),
    Drive("vdb", 12, "b.qcow2", size=8 * MIB + 4096 * 3, words="block=4096", chain=2),
    # Nothing on it, and smaller than one cluster altogether.
    Drive("vdc", 13, size=3 * SECTOR, fill="none", words="cache=writeback"),
    Drive("vdd", 14, "d.qcow2", size=16 * MIB, fill="none"),
    Drive("vde", 15, size=64 * MIB, fill="sparse", words="cache=writeback"),
    Drive("sda", 16, "s.qcow2", size=8 * MIB, words="bus=scsi,wwn=0x5000c500a1b2c3d4"),
    Drive("sdb", 17, size=8 * MIB + 4096, words="bus=scsi,block=4096", serial="a blank, and a comma"),
)
# What the first, the second … is moved by; the others by the policy of the whole.
CHOSEN = {"vda": Handler.BACKGROUND, "vdb": Handler.REDIRECT, "sda": Handler.BACKGROUND, "sdb": Handler.REDIRECT}


async def test_all_kinds_at_once(fleet: Fleet, tmp_path: Path) -> None:
    guest = await fleet.boot(*DRIVES, load="esd.mode=verify esd.rate=200 esd.area=256k")
    seen = await guest.disks()
    assert {name: int(row["size"]) for name, row in seen.items()} == {drive.id: drive.size for drive in DRIVES}

    told = await guest.migrate(fleet.b, Handler.ON_DEMAND, disk_handlers=CHOSEN)

    handlers = {disk.disk: disk.handler for disk in told.disks}
    moved = {name: "local" if handler is Handler.BACKGROUND else str(handler) for name, handler in CHOSEN.items()}
    assert handlers == {drive.id: moved.get(drive.id, "on-demand") for drive in DRIVES}
    suids = {disk.disk: disk.suid for disk in told.disks}
    assert (suids["vda"], suids["sda"]) == ("SN.of-the_first", "5000c500a1b2c3d4")
    await guest.sees(seen)
    await guest.is_well()

    await api.settle_guest("vm1", "hostB", lambda *_: None)

    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    await guest.sees(seen)
    for drive in DRIVES:
        member = fleet.b.real(f"/var/lib/qemu-esd/disks/vm1.{suids[drive.id]}.g1.qcow2")
        target = content.flatten(content.image(member, "qcow2"), tmp_path / "target")
        content.check_content(target, drive)
        assert content.crc(target) == await guest.crc(drive)
    await fleet.finish(guest)
