"""Another handler under a running guest: every change that makes sense, and the guest sees no error."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.errors import RefusedError
from qemu_esd.model.policy import Handler
from tests.integration.support import content
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest

pytestmark = pytest.mark.lab

EIO = 5
CHATTER = 256 << 10
# Only these are worked on by the load, so that the test knows what nobody has read.
LOAD = "esd.mode=verify esd.rate=200 esd.mix=60/40/0 esd.area=2M esd.spread=0"
LENGTH = 2 * MIB


async def test_changes_while_the_guest_runs(fleet: Fleet, tmp_path: Path) -> None:
    """Each change, and then two reads of data that nobody has read: does it come, and does it stay?"""
    vda = Drive("vda", 7, size=48 * MIB)
    guest = await fleet.boot(vda, load=LOAD)
    await guest.migrate(fleet.b, Handler.REDIRECT)
    place = iter(range(4 * MIB, vda.size, LENGTH))

    await becomes(guest, Handler.ON_DEMAND)
    assert await requests(fleet, guest, vda, next(place)) == (True, False)
    await becomes(guest, Handler.REDIRECT)
    assert await requests(fleet, guest, vda, next(place)) == (True, True)
    await becomes(guest, Handler.MISS)
    missed = next(place)
    assert await guest.read(vda, missed, 4096) == EIO
    assert (await guest.look()).disks[0].needs_source is False
    await becomes(guest, Handler.REDIRECT)
    assert await requests(fleet, guest, vda, missed) == (True, True)
    await becomes(guest, Handler.MISS)
    await becomes(guest, Handler.ON_DEMAND)
    assert await requests(fleet, guest, vda, missed) == (True, False)
    await becomes(guest, Handler.MISS)
    # What has been kept stays, whatever comes later.
    assert await guest.read(vda, missed, LENGTH) == 0
    assert await guest.read(vda, next(place), 4096) == EIO
    await becomes(guest, Handler.REDIRECT)
    await becomes(guest, Handler.REDIRECT)

    await api.settle_guest("vm1", "hostB", lambda *_: None)

    faults = [fault["errno"] for fault in guest.faults()]
    assert faults == [str(EIO)] * 2
    await guest.pause()
    line = await guest.ask("recheck all")
    assert (line.number("err"), line.number("bad")) == (0, 0)
    target = content.flatten(content.image(guest.member(vda), "qcow2"), tmp_path / "target")
    assert content.crc(target) == await guest.crc(vda)
    await fleet.finish(guest)


async def becomes(guest: Guest, handler: Handler) -> None:
    """Under load; the load goes on."""
    seen = await api.change_policy("vm1", None, handler, guest.machine.name)
    assert [disk.handler for disk in seen.disks] == [str(handler)]
    before = await guest.status()
    after = await guest.status()
    assert after.number("ops") > before.number("ops")
    assert after.number("bad") == 0


async def requests(fleet: Fleet, guest: Guest, drive: Drive, offset: int) -> tuple[bool, bool]:
    """Whether the first and the second read of a range ask the source for it."""
    counts = [fleet.a.sent_bytes(fleet.b)]
    for _ in range(2):
        assert await guest.read(drive, offset, LENGTH) == 0
        counts.append(fleet.a.sent_bytes(fleet.b))
    first, second = counts[1] - counts[0], counts[2] - counts[1]
    return first > CHATTER, second > CHATTER


async def test_background_and_out_of_it_again(fleet: Fleet, tmp_path: Path) -> None:
    """A background move that would take minutes is stopped by another policy, and what it has brought stays."""
    vda, vdb = Drive("vda", 7), Drive("vdb", 9, "b.qcow2", size=24 * MIB)
    guest = await fleet.boot(vda, vdb, load=LOAD)
    await guest.migrate(fleet.b, Handler.BACKGROUND, until_settled=False, bandwidth=64 << 10)
    for disk in ("vda", "vdb"):
        await api.change_policy("vm1", disk, Handler.REDIRECT, "hostB")
    seen = await guest.look()
    assert [disk.handler for disk in seen.disks] == ["redirect", "redirect"]
    assert seen.job is None
    await guest.is_well()
    await fleet.finish(guest)


async def test_what_makes_no_sense_is_refused(fleet: Fleet) -> None:
    """On this QEMU, nothing that keeps reads can be put over the subclusters that miss has; and what is settled is settled."""
    vda = Drive("vda", 7, size=8 * MIB)
    guest = await fleet.idle(vda)
    await guest.migrate(fleet.b, Handler.MISS, until_settled=False)
    for handler in (Handler.ON_DEMAND, Handler.BACKGROUND):
        with pytest.raises(RefusedError) as refused:
            await api.change_policy("vm1", "vda", handler, "hostB")
        assert (refused.value.host, refused.value.hint) == ("hostB", "choose redirect")
    changed = await api.change_policy("vm1", "vda", Handler.REDIRECT, "hostB")
    assert [disk.handler for disk in changed.disks] == ["redirect"]
    await api.settle_guest("vm1", "hostB", lambda *_: None)
    with pytest.raises(RefusedError):
        await api.change_policy("vm1", "vda", Handler.REDIRECT, "hostB")
    await fleet.finish(guest)
    content.check_standalone(guest.member(vda))
