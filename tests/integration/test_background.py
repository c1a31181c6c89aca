"""background: everything is moved while the guest runs; once settled, nothing can be lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.errors import UnfinishedError
from qemu_esd.graph.handlers import overlays
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import State
from qemu_esd.qmp import blockdev
from tests.integration.support import content
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.machine import ended

pytestmark = pytest.mark.lab

AREA = 512 << 10


async def test_story(fleet: Fleet, tmp_path: Path) -> None:
    """Under load all the time. An odd size, a chain, holes, and a disk with nothing on it."""
    vda = Drive("vda", 7, size=32 * MIB + 512 * 11)
    vdb = Drive("vdb", 9, "b.qcow2", size=24 * MIB, fill="holes", chain=1)
    vdc = Drive("vdc", 5, size=64 * MIB, fill="none")
    guest = await fleet.boot(vda, vdb, vdc, load=f"esd.mode=verify esd.rate=300 esd.area={AREA}")
    await guest.is_well()

    told = await guest.migrate(fleet.b, Handler.BACKGROUND)

    assert told.state == State.SETTLED
    assert [(disk.handler, disk.remote_bytes, disk.needs_source) for disk in told.disks] == [("local", 0, False)] * 3
    assert fleet.a.processes() == ()
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    for drive in guest.drives:
        source = content.flatten(drive.source(fleet.a, told.id), tmp_path / "source")
        target = content.flatten(content.image(guest.member(drive), "qcow2"), tmp_path / "target")
        written = content.later_writes(source, target)
        assert len(written) > 0
        assert content.crc(target) == await guest.crc(drive)
    # The guest writes its blocks all over an empty disk, each into a cluster of its own.
    assert guest.member(vdc).stat().st_blocks * 512 < AREA // 4096 * overlays.CLUSTER + MIB
    await fleet.finish(guest)
    for drive in guest.drives:
        content.check_standalone(guest.member(drive))


async def test_killed_when_settled(fleet: Fleet, tmp_path: Path) -> None:
    """The target's QEMU is killed the moment it is settled: what was copied, written and flushed is there."""
    vda, vdb = Drive("vda", 7), Drive("vdb", 9, "b.qcow2", size=32 * MIB, fill="holes")
    guest = await fleet.boot(vda, vdb)
    await guest.is_well()
    await guest.pause()
    told = await guest.migrate(fleet.b, Handler.BACKGROUND, until_settled=False)
    for drive in guest.drives:
        for offset in range(MIB, drive.size, 4 * MIB):
            assert await guest.write(drive, offset + 4096, 4096) == 0
    await guest.sync()

    await api.settle_guest("vm1", "hostB", lambda *_: None)
    qemu = guest.qemu()
    guest.kill()

    await ended(qemu.pid)
    for drive in guest.drives:
        content.check_standalone(guest.member(drive))
        source = content.flatten(drive.source(fleet.a, told.id), tmp_path / "source")
        target = content.flatten(content.image(guest.member(drive), "qcow2"), tmp_path / "target")
        assert set(content.later_writes(source, target)) == {
            offset + 4096 + at for offset in range(MIB, drive.size, 4 * MIB) for at in range(0, 4096, 512)
        }


async def test_killed_when_the_header_has_forgotten_its_backing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the graph has not: nothing is lost, the guest starts again over the link, and settles."""
    drive = Drive("vda", 9, size=32 * MIB, fill="holes")
    guest = await fleet.boot(drive, load="esd.mode=idle")
    await guest.migrate(fleet.b, Handler.ON_DEMAND)
    assert await guest.write(drive, 5 * MIB, 256 << 10) == 0
    await guest.sync()
    before = await read_all(guest, drive)

    async def die(*_: object) -> None:
        pid = guest.qemu().pid
        guest.kill()
        await ended(pid)
        raise UnfinishedError("killed", host="hostB", hint="")

    with monkeypatch.context() as patch, pytest.raises(UnfinishedError, match="killed"):
        patch.setattr(blockdev, "reopen", die)
        await api.settle_guest("vm1", "hostB", lambda *_: None)
    guest.leave_terminal()
    assert "backing-filename" not in content.facts(guest.member(drive))

    assert (await say("vm", "start", "vm1")).status == 0
    await guest.console.wait("ready")
    assert await read_all(guest, drive) == before
    assert (await say("settle", "vm1")).status == 0
    assert await read_all(guest, drive) == before
    await fleet.finish(guest)
    content.check_standalone(guest.member(drive))


async def read_all(guest: Guest, drive: Drive) -> str:
    """The sum of the whole disk. After a boot the load does not know any more what it had written."""
    line = await guest.ask(f"read {drive.guest_name} 0 {drive.size}")
    assert line.number("errno") == 0
    return line.values["crc"]


async def test_an_image_stays_sparse(fleet: Fleet) -> None:
    vda, vdb = Drive("vda", 7, size=128 * MIB, fill="sparse"), Drive("vdb", 9, size=256 * MIB, fill="none")
    guest = await fleet.idle(vda, vdb)
    await guest.migrate(fleet.b, Handler.BACKGROUND)
    assert guest.member(vda).stat().st_blocks * 512 < 3 * MIB
    assert content.allocated(guest.member(vdb)) == []
    await fleet.finish(guest)
    content.check_pattern(flat_of(guest.member(vda)), vda)


async def test_islands_in_a_sea_of_holes(fleet: Fleet) -> None:
    """What the guest had written here and there is found by the map, and nothing else is stored."""
    vda = Drive("vda", 7, size=20 << 30, fill="none")
    guest = await fleet.boot(vda, load=f"esd.mode=verify esd.rate=200 esd.mix=50/50/0 esd.area={AREA}")
    await guest.is_well()

    told = await guest.migrate(fleet.b, Handler.BACKGROUND)

    assert told.state == State.SETTLED
    await guest.is_well()
    await guest.pause()
    checked = await guest.ask("recheck")
    assert [checked.number(key) for key in ("err", "bad", "absent")] == [0, 0, 0]
    assert checked.number("ok") > 0
    assert sum(length for _, length in content.allocated(guest.member(vda))) <= AREA // 4096 * overlays.CLUSTER
    await fleet.finish(guest)
    content.check_standalone(guest.member(vda))


def flat_of(path: Path) -> Path:
    return content.flatten(content.image(path, "qcow2"), path.with_suffix(".flat"))
