"""Another handler under a running guest: every change that makes sense, and the guest sees no error."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.errors import RefusedError, UsageError
from qemu_esd.hypervisors.versions import mended
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import DiskRecord
from qemu_esd.model.request import Request
from qemu_esd.phases import layers
from qemu_esd.phases.station import Station
from tests.integration.support import content
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest

pytestmark = pytest.mark.lab

EIO = 5
CHATTER = 256 << 10
LENGTH = MIB
# It only writes, and only there: so the test knows what nobody has read, and no miss is met by chance.
LOAD = "esd.mode=verify esd.rate=200 esd.mix=100/0/0 esd.area=2M esd.spread=0"
FRESH = range(4 * MIB, 40 * MIB, LENGTH)

MISS, REDIRECT, BACKGROUND, ON_DEMAND = Handler
# Each of the four after each other one, beginning with miss: its device reports errors, which no change can give it.
ALL_PAIRS = (
    *(REDIRECT, ON_DEMAND, MISS, ON_DEMAND, REDIRECT, MISS),
    *(BACKGROUND, REDIRECT, BACKGROUND, ON_DEMAND, BACKGROUND, MISS),
)


def test_the_list_has_all_pairs() -> None:
    assert len(set(pairwise((MISS, *ALL_PAIRS)))) == 12


async def test_every_change_while_the_guest_runs(fleet: Fleet) -> None:
    """After each change: is data that nobody has read answered, and is it kept?"""
    vda = Drive("vda", 7, size=FRESH.stop)
    guest = await fleet.boot(vda, load=LOAD)
    await guest.status()
    # Slow enough for the background move never to come to what is asked for.
    await guest.migrate(fleet.b, MISS, until_settled=False, bandwidth=128 << 10)
    fresh = iter(reversed(FRESH))
    for handler in ALL_PAIRS:
        await becomes(guest, handler)
        await answers_as(fleet, guest, handler, vda, next(fresh))
    assert (await guest.look()).disks[0].needs_source is False
    await becomes(guest, REDIRECT)
    assert {fault["errno"] for fault in guest.faults()} == {str(EIO)}
    assert len(guest.faults()) == ALL_PAIRS.count(MISS)
    await guest.pause()
    assert await guest.crc(vda) != 0


async def answers_as(fleet: Fleet, guest: Guest, handler: Handler, drive: Drive, offset: int) -> None:
    if handler is MISS:
        assert await guest.read(drive, offset, 4096) == EIO
    elif handler is BACKGROUND:
        assert await guest.read(drive, offset, LENGTH) == 0
    else:
        assert await requests(fleet, guest, drive, offset) == (True, handler is REDIRECT)


async def becomes(guest: Guest, handler: Handler) -> None:
    """Under load; the load goes on."""
    seen = await api.change_policy("vm1", None, handler, guest.machine.name)
    assert [disk.handler for disk in seen.disks] == [str(handler)]
    await guest.goes_on(("bad",))


async def requests(fleet: Fleet, guest: Guest, drive: Drive, offset: int) -> tuple[bool, bool]:
    """Whether the first and the second read of a range ask the source for it."""
    counts = [fleet.a.sent_bytes(fleet.b)]
    for _ in range(2):
        assert await guest.read(drive, offset, LENGTH) == 0
        counts.append(fleet.a.sent_bytes(fleet.b))
    first, second = counts[1] - counts[0], counts[2] - counts[1]
    print(f"the first read of {offset} moved {first} bytes, the second {second}")
    return first > CHATTER, second > CHATTER


async def test_background_and_out_of_it_again(fleet: Fleet) -> None:
    """A background move that goes on without us is stopped by another policy; later it comes to its end by itself."""
    vda, vdb = Drive("vda", 7, size=8 * MIB), Drive("vdb", 9, "b.qcow2", size=4 * MIB)
    # It reads nothing, which would bring all of it over.
    guest = await fleet.boot(vda, vdb, load=LOAD)
    request = Request("vm1", "hostB", BACKGROUND, source="hostA", bandwidth=MIB // 2)
    await api.migrate_detached(request, print)
    guest.arrived(fleet.b)
    await moving(guest)
    for disk in ("vda", "vdb"):
        await api.change_policy("vm1", disk, REDIRECT, "hostB")
    seen = await guest.look()
    assert [disk.handler for disk in seen.disks] == ["redirect", "redirect"]
    assert sum(disk.remote_bytes or 0 for disk in seen.disks) > 0
    assert seen.job is None
    await guest.is_well()

    await api.change_policy("vm1", None, BACKGROUND, "hostB")

    async with asyncio.timeout(150):
        while (await api.look_at_guests("vm1"))[0].upstream:
            await asyncio.sleep(2)
    await guest.is_well()
    await fleet.finish(guest, settle=False)
    for drive in guest.drives:
        content.check_standalone(guest.member(drive))


async def moving(guest: Guest) -> None:
    """Return when a background job has brought something."""
    async with asyncio.timeout(150):
        while not ((seen := (await api.look_at_guests("vm1"))[0]).job and seen.job.done):
            await asyncio.sleep(0.2)


async def test_over_the_fine_grain_of_miss(fleet: Fleet, tmp_path: Path) -> None:
    """Copy-on-read above subclusters aborts this QEMU: a guest that came with miss is settled nevertheless."""
    vda = Drive("vda", 7, size=8 * MIB)
    guest = await fleet.boot(vda, load=LOAD)
    await guest.pause()
    await guest.migrate(fleet.b, MISS, until_settled=False)
    for offset in range(0, vda.size, MIB):
        assert await guest.write(vda, offset + 512, 512) == 0
    await api.change_policy("vm1", "vda", ON_DEMAND, "hostB")
    await guest.resume()
    await guest.recheck()
    await api.settle_guest("vm1", "hostB", lambda *_: None)
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    await fleet.finish(guest)


async def test_killed_before_an_overlay_is_put_on_top(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record names it, and the guest does not write to it yet: the next command puts it in, and nothing is lost."""
    vda = Drive("vda", 7, size=8 * MIB)
    guest = await fleet.boot(vda, load=LOAD)
    await guest.migrate(fleet.b, MISS, until_settled=False)
    async with api.open_guest("vm1") as station:
        if mended(station.guest.version).subclusters:
            pytest.skip("this QEMU needs no other overlay for what keeps reads")
    with monkeypatch.context() as patch:
        patch.setattr(layers, "complete", cut_off)
        with pytest.raises(KilledError):
            await api.change_policy("vm1", "vda", ON_DEMAND, "hostB")
    await api.change_policy("vm1", "vda", ON_DEMAND, "hostB")
    await guest.status()
    await api.settle_guest("vm1", "hostB", lambda *_: None)
    await guest.pause()
    await guest.recheck()
    await fleet.finish(guest)


class KilledError(Exception):
    """Stands for a kill."""


async def cut_off(station: Station, disk: DiskRecord) -> None:
    if disk.level:
        raise KilledError


async def test_what_makes_no_sense_is_refused(fleet: Fleet) -> None:
    vda = Drive("vda", 7, size=8 * MIB)
    guest = await fleet.idle(vda)
    await guest.migrate(fleet.b, REDIRECT)
    await refused("stops the guest", "--disk-policy vda=miss", MISS)
    with pytest.raises(UsageError, match="no disk 'vdb'"):
        await api.change_policy("vm1", "vdb", ON_DEMAND, "hostB")
    await api.settle_guest("vm1", "hostB", lambda *_: None)
    for handler in Handler:
        await refused("all of vda is where the guest runs", "status", handler)
    await fleet.finish(guest)


async def refused(what: str, hint: str, handler: Handler) -> None:
    with pytest.raises(RefusedError, match=what) as error:
        await api.change_policy("vm1", "vda", handler, "hostB")
    assert error.value.host == "hostB"
    assert hint in (error.value.hint or "")
