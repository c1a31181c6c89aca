"""The target loses its power: its QEMU is gone, and with it what was not flushed. What was flushed is there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd.model.policy import Handler
from tests.faults import report
from tests.faults.report import thorough
from tests.integration.support import content
from tests.integration.support.commands import end, say, start
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import running_on
from tests.integration.support.machine import STATE, ended
from tests.support.bad_disk import BadDisk, bad_disk

pytestmark = pytest.mark.lab

VDA, VDB = Drive("vda", 7, size=16 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1)
BLOCK = 4096
# Of the places of the writes, and of the moments; pytest shows it with a failure.
SEED = random.randrange(1 << 32)
SLOW = 4 * MIB


# What a read of these places gave when they had been flushed: (disk, offset, length) to its checksum.
Flushed = dict[tuple[str, int, int], str]


@thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rounds", [3])
async def test_the_power_is_lost_while_data_is_moved(fleet: Fleet, tmp_path: Path, rounds: int) -> None:
    """Again and again, at any moment; and in the end all is there."""
    chance, flushed, lost = random.Random(SEED), Flushed(), 0
    with bad_disk(fleet.b, f"{STATE}/disks") as disk:
        guest = await fleet.boot(VDA, VDB, load="esd.mode=idle")
        await guest.migrate(fleet.b, Handler.BACKGROUND, until_settled=False, bandwidth=SLOW)
        for _ in range(rounds):
            flushed = await written(guest, chance, flushed)
            moving = await start("settle", "vm1")
            await asyncio.sleep(chance.uniform(0, 4))
            lost += await lose_power(guest, disk)
            # 3: it had not begun.
            assert (told := await end(moving)).status in (0, 3, 4), told
            await comes_back(fleet, guest)
            assert await seen(guest, flushed) == flushed
        assert lost > 0
        await ends_well(fleet, guest, tmp_path, flushed)
        report.note(report.Line(f"target loses power, {rounds} times", "settling", "-", "vm start, settle", "hostB"))
        await fleet.finish(guest)


@thorough
async def test_the_power_is_lost_when_it_is_settled(fleet: Fleet, tmp_path: Path) -> None:
    """The source may have forgotten it by then, and has: what was moved is all there is."""
    chance = random.Random(SEED)
    with bad_disk(fleet.b, f"{STATE}/disks") as disk:
        guest = await fleet.boot(VDA, VDB, load="esd.mode=idle")
        await guest.migrate(fleet.b, Handler.ON_DEMAND)
        flushed = await written(guest, chance, Flushed())
        settled = await say("settle", "--release", "vm1")
        assert settled.status == 0, settled
        await lose_power(guest, disk)
        await comes_back(fleet, guest)
        assert await seen(guest, flushed) == flushed
        await ends_well(fleet, guest, tmp_path, flushed)
        report.note(report.Line("target loses power", "settled, released", "-", "vm start", "hostB"))
        await fleet.finish(guest)


async def written(guest: Guest, chance: random.Random, before: Flushed) -> Flushed:
    """Writes that are flushed, some of them over those of `before`; and others, elsewhere, that are not."""
    flushed = [place for drive in guest.drives for place in places(drive, 0, chance)]
    for name, offset, length in flushed:
        assert (await guest.ask(f"write {name} {offset} {length}")).number("errno") == 0
    await guest.sync()
    found = await seen(guest, {*before, *flushed})
    for name, offset, length in (place for drive in guest.drives for place in places(drive, 1, chance)):
        assert (await guest.ask(f"write {name} {offset} {length}")).number("errno") == 0
    return found


def places(drive: Drive, half: int, chance: random.Random) -> list[tuple[str, int, int]]:
    """Some places in the first or second half of every MiB, of any size, within clusters and across."""
    starts = [mib * MIB + half * MIB // 2 + chance.randrange(64) * BLOCK for mib in range(1, drive.size // MIB)]
    return [(drive.id, start, chance.randrange(1, 48) * BLOCK) for start in chance.sample(starts, 4)]


async def seen(guest: Guest, those: Iterable[tuple[str, int, int]]) -> Flushed:
    found = Flushed()
    for name, offset, length in those:
        line = await guest.ask(f"read {name} {offset} {length}")
        assert line.number("errno") == 0, line
        found[name, offset, length] = line.values["crc"]
    return found


async def lose_power(guest: Guest, disk: BadDisk) -> int:
    """Returns how many writes are forgotten."""
    pid = guest.qemu().pid
    guest.kill()
    await ended(pid)
    guest.leave_terminal()
    return disk.lose_power()


async def comes_back(fleet: Fleet, guest: Guest) -> None:
    told = await say("status", "vm1")
    assert "qemu-esd vm start vm1" in told.out, told
    started = await say("vm", "start", "vm1")
    assert started.status == 0, started
    await guest.settle_in(booted=True)
    assert await running_on(fleet.machines, "vm1") == ["hostB"]


async def ends_well(fleet: Fleet, guest: Guest, folder: Path, flushed: Flushed) -> None:
    settled = await say("settle", "vm1")
    assert settled.status == 0, settled
    assert await seen(guest, flushed) == flushed
    await guest.sync()
    for drive in guest.drives:
        content.check_standalone(guest.member(drive))
        flat = content.flatten(content.image(guest.member(drive), "qcow2"), folder / drive.id)
        assert content.check_content(flat, drive)
