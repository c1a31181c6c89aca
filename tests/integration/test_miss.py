"""miss: a read of what is only on the source fails at once; writes always succeed, and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.pattern import MIB, SECTOR
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import State
from tests.integration.support import content
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest

pytestmark = pytest.mark.lab

EIO = 5
LOAD = "esd.mode=verify esd.rate=300 esd.expect=miss esd.block=512 esd.area=4M"
CHATTER = 64 << 10


async def test_story(fleet: Fleet, tmp_path: Path) -> None:
    """A disk with blocks of 512 bytes and one with 4096; the guest writes single blocks all over both."""
    vda = Drive("vda", 7, size=16 * MIB + 3 * SECTOR)
    vdb = Drive("vdb", 9, "b.qcow2", size=16 * MIB, words="block=4096")
    guest = await fleet.boot(vda, vdb, load=LOAD)
    await guest.is_well()
    # What the guest has written before is absent as well, and it would wonder: so it forgets, by a reboot.
    await guest.pause()

    told = await guest.migrate(fleet.b, Handler.MISS)

    assert [(disk.handler, disk.needs_source) for disk in told.disks] == [("miss", False)] * 2
    assert told.state == State.SETTLED
    assert fleet.a.processes() == ()
    await guest.ask("reboot")
    await guest.console.wait("ready")
    sent = fleet.a.sent_bytes(fleet.b)
    await guest.goes_on(("err", "bad"), operations=900)
    now = guest.last_status()
    assert min(now.number(key) for key in ("r", "w", "absent")) > 0

    await guest.pause()
    await only_absent_data_fails(guest, vda, 512)
    await only_absent_data_fails(guest, vdb, 4096)
    assert fleet.a.sent_bytes(fleet.b) - sent < CHATTER
    everything = await guest.ask("recheck all")
    assert [everything.number(key) for key in ("err", "bad")] == [0, 0], guest.faults()
    held = {drive.id: content.allocated(guest.member(drive)) for drive in guest.drives}
    blocks = {"vda": held_bytes(held["vda"]) // 512, "vdb": held_bytes(held["vdb"]) // 4096}
    assert everything.number("ok") == sum(blocks.values())
    for drive in guest.drives:
        stamps_only(guest, drive, held[drive.id], tmp_path)
    await fleet.finish(guest)


async def only_absent_data_fails(guest: Guest, drive: Drive, block: int) -> None:
    """One block in the middle of a cluster that nobody has touched."""
    place = untouched(guest, drive) + 5 * block
    assert await guest.read(drive, place, block) == EIO
    assert await guest.write(drive, place, block) == 0
    assert await guest.read(drive, place, block) == 0
    assert await guest.read(drive, place - block, block) == EIO
    assert await guest.read(drive, place + block, block) == EIO
    await guest.sync()


def untouched(guest: Guest, drive: Drive) -> int:
    """The start of 128 KiB of which nothing is held."""
    taken = content.clusters(content.allocated(guest.member(drive)), 128 << 10)
    return (128 << 10) * next(number for number in range(drive.size >> 17) if number not in taken)


def held_bytes(ranges: list[tuple[int, int]]) -> int:
    return sum(length for _, length in ranges)


def stamps_only(guest: Guest, drive: Drive, held: list[tuple[int, int]], tmp_path: Path) -> None:
    """The member holds what the guest has written, and nothing else."""
    path = content.flatten(content.over(guest.member(drive), None), tmp_path / drive.id)
    with path.open("rb") as file:
        for start, length in held:
            file.seek(start)
            for at in range(start, start + length, SECTOR):
                stamp = content.read_stamp(file.read(SECTOR))
                assert stamp is not None and stamp.position == at
