"""QEMUs and path handlers are killed: where the guest is then, what of its data, and how it comes back."""

from __future__ import annotations

import zlib

import pytest

from images.pattern import MIB
from qemu_esd.errors import EsdError
from qemu_esd.model.policy import Handler
from qemu_esd.phases import handover
from qemu_esd.phases.context import Context
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.machine import ended

pytestmark = pytest.mark.lab

EIO = 5
VDA, VDB = Drive("vda", 7, size=16 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1)
# Written before the kill, in parts and whole clusters; and what nobody has touched.
WRITTEN = ((3 * MIB + 512, 512), (5 * MIB, 64 << 10), (7 * MIB - 4096, 8192))
FRESH = (2 * MIB, MIB // 2)


@pytest.mark.parametrize("handler", [Handler.ON_DEMAND, Handler.REDIRECT, Handler.MISS])
async def test_the_target_is_killed_before_it_is_settled(fleet: Fleet, handler: Handler) -> None:
    """The guest is gone, its disks are not: started again it finds what it had flushed, and the rest on the source."""
    guest = await fleet.boot(VDA, VDB, load="esd.mode=idle")
    await guest.migrate(fleet.b, handler, until_settled=False)
    for drive in guest.drives:
        for place in WRITTEN:
            assert await guest.write(drive, *place) == 0
    await guest.sync()
    before = await seen(guest)
    await killed(guest)

    told = await say("status", "vm1")
    assert ("shut off" in told.out, "vm start vm1" in told.out) == (True, True), told
    started = await say("vm", "start", "vm1")
    assert started.status == 0, started
    await guest.settle_in(booted=True)
    assert await seen(guest) == before
    await untouched(guest, handler)
    await fleet.finish(guest)


async def seen(guest: Guest) -> list[tuple[int, str]]:
    """What it reads where it had written: (errno, checksum). The load does not know any more what it was."""
    lines = [await guest.ask(f"read {drive.id} {at} {length}") for drive in guest.drives for at, length in WRITTEN]
    return [(line.number("errno"), line.values["crc"]) for line in lines]


async def untouched(guest: Guest, handler: Handler) -> None:
    """What is only on the source is read from there, or missed."""
    for drive in guest.drives:
        line = await guest.ask(f"read {drive.id} {FRESH[0]} {FRESH[1]}")
        if handler is Handler.MISS:
            assert line.number("errno") == EIO
        else:
            assert int(line.values["crc"], 16) == zlib.crc32(drive.expected(*FRESH))


async def killed(guest: Guest) -> None:
    pid = guest.qemu().pid
    guest.kill()
    await ended(pid)
    guest.leave_terminal()


async def test_a_settled_guest_is_started_again(fleet: Fleet) -> None:
    """After `vm stop` as after a crash: its image is whole and needs nobody."""
    guest = await fleet.boot(VDA, load="esd.mode=idle")
    await guest.migrate(fleet.b, Handler.BACKGROUND)
    assert (await say("vm", "stop", "--force", "vm1")).status == 0
    guest.leave_terminal()
    started = await say("vm", "start", "vm1")
    assert started.status == 0, started
    await guest.settle_in(booted=True)
    line = await guest.ask(f"read vda 0 {VDA.size}")
    assert int(line.values["crc"], 16) == zlib.crc32(VDA.expected(0, VDA.size))
    await fleet.finish(guest)


async def test_a_guest_that_never_moved_is_started_again(fleet: Fleet) -> None:
    guest = await fleet.boot(VDA, load="esd.mode=idle")
    refused = await say("vm", "start", "vm1")
    assert (refused.status, "runs there" in refused.err) == (3, True), refused
    await killed(guest)
    started = await say("vm", "start", "vm1")
    assert started.status == 0, started
    await guest.settle_in(booted=True)
    await fleet.finish(guest, settle=False)


async def test_the_source_dies_when_it_has_given_the_guest_away(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target has all of it, and goes on: the usual undoing would leave the guest nowhere."""
    guest = await fleet.boot(VDA, VDB)
    await guest.is_well()
    take_images, calls = handover.take_images, list[Context]()

    async def die_first(ctx: Context) -> None:
        calls.append(ctx)
        if len(calls) == 1:
            pid = guest.qemu().pid
            guest.kill()
            await ended(pid)
            raise EsdError("the source's QEMU is dead")
        await take_images(ctx)

    monkeypatch.setattr(handover, "take_images", die_first)
    told = await guest.migrate(fleet.b, Handler.ON_DEMAND)
    assert told.committed
    assert len(calls) > 1
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    await fleet.finish(guest)
