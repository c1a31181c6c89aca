"""The source cannot read a sector: all else is moved, the sector is named, and it is had when it has been mended."""

from __future__ import annotations

import asyncio
from errno import EIO
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd.errors import UnfinishedError
from qemu_esd.graph import bad_sectors
from qemu_esd.graph.handlers import overlays
from qemu_esd.model.policy import Handler, ReadErrors
from tests.faults import report
from tests.integration.support import content
from tests.integration.support.commands import Said, say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import running_on, tell
from tests.integration.support.machine import SRV
from tests.support.bad_disk import Fault, bad_disk

pytestmark = pytest.mark.lab

VDA, VDB = Drive("vda", 7, size=16 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1)
# It never goes where the disk is bad.
LOAD = "esd.mode=verify esd.rate=200 esd.area=1M esd.spread=0 esd.mix=60/40/0"
CLUSTER = overlays.CLUSTER
PAGE = 4096
BAD = 5 * MIB + PAGE


async def test_a_sector_of_the_source_is_bad(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bad_sectors, "AGAIN_SECONDS", 1)
    with bad_disk(fleet.a, SRV) as disk:
        guest = await fleet.boot(VDA, VDB, load=LOAD)
        disk.fail(Fault("read", VDA.name, BAD, BAD + 512))
        with pytest.raises(UnfinishedError) as moved:
            await guest.migrate(fleet.b, Handler.BACKGROUND)
        assert f"of vda cannot be brought over: {CLUSTER} bytes from byte {5 * MIB} on" in str(moved.value)
        guest.arrived(fleet.b)
        again = await all_else_is_there(fleet, guest)
        reading = await a_read_of_it_stops_the_guest(guest)
        disk.mend()
        await readable_again(fleet)
        assert (await say("vm", "cont", "vm1")).status == 0
        assert await reading == 0
        settled = await say("settle", "vm1")
        assert settled.status == 0, settled
        await guest.is_well()
        await is_whole(guest, tmp_path)
        told = f"settle ({again.status}), mended, vm cont (0), settle (0)"
        report.note(report.Line("bad sector on the source", "settling", "UnfinishedError (4)", told, "hostB"))
        await fleet.finish(guest)


async def test_a_bad_sector_is_the_guests_own_error(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --read-errors report: an error for that block only, and the guest goes on."""
    monkeypatch.setattr(bad_sectors, "AGAIN_SECONDS", 1)
    with bad_disk(fleet.a, SRV) as disk:
        guest = await fleet.boot(VDA, VDB, load=LOAD)
        await guest.migrate(fleet.b, Handler.REDIRECT, read_errors=ReadErrors.REPORT)
        disk.fail(Fault("read", VDA.name, BAD, BAD + 512))
        assert await guest.read(VDA, BAD, 512) == EIO
        # The source reads it through its page cache, by pages.
        for good in (BAD - PAGE, BAD + PAGE):
            assert await guest.read(VDA, good, PAGE) == 0
        await guest.goes_on(("bad",))
        assert guest.last_status().number("err") == 1
        assert (await tell(guest, "query-status"))["status"] == "running"
        stuck = await say("settle", "vm1")
        assert (stuck.status, f"{CLUSTER} bytes from byte {5 * MIB} on" in stuck.err) == (4, True), stuck
        disk.mend()
        await readable_again(fleet)
        assert await guest.read(VDA, BAD, 512) == 0
        settled = await say("settle", "vm1")
        assert settled.status == 0, settled
        told = f"settle ({stuck.status}), mended, settle (0)"
        report.note(report.Line("bad sector on the source, reported", "handed over", "done", told, "hostB"))
        await fleet.finish(guest)


async def all_else_is_there(fleet: Fleet, guest: Guest) -> Said:
    await guest.is_well()
    assert await running_on(fleet.machines, "vm1") == ["hostB"]
    told = (await say("status", "vm1", "--json")).json["vms"][0]
    assert {row["disk"]: (row["handler"], row["remote_bytes"]) for row in told["disks"]} == {
        "vda": ("background", CLUSTER),
        "vdb": ("local", 0),
    }
    assert told["state"] == "settling"
    broken = breaks(fleet)
    again = await say("settle", "vm1")
    assert (again.status, f"{CLUSTER} bytes from byte {5 * MIB} on" in again.err) == (4, True), again
    # Known by now: nobody reads it, and so the way to the source stands.
    assert breaks(fleet) == broken > 0
    return again


def breaks(fleet: Fleet) -> int:
    """How often the path handler has hung up because of a read that failed."""
    return fleet.a.logs().count("reading from file failed")


async def a_read_of_it_stops_the_guest(guest: Guest) -> asyncio.Future[int]:
    """Of that cluster, and of no other; `status` says what has stopped it. Returns the read, which waits."""
    assert await guest.read(VDA, 5 * MIB - CLUSTER, CLUSTER) == 0
    reading = asyncio.ensure_future(guest.read(VDA, BAD, 512))
    async with asyncio.timeout(60):
        while (await tell(guest, "query-status"))["status"] != "io-error":
            await asyncio.sleep(0.1)
    told = await say("status", "vm1")
    what = "vda has stopped it: a read or write of its image on hostB, or of what is still on hostA has failed"
    assert (what in told.out, "qemu-esd vm cont vm1" in told.out) == (True, True), told
    return reading


async def readable_again(fleet: Fleet) -> None:
    """The path handler has found out by itself."""
    async with asyncio.timeout(60):
        while "0 sectors of" not in fleet.a.logs():
            await asyncio.sleep(0.2)


async def is_whole(guest: Guest, folder: Path) -> None:
    await guest.pause()
    await guest.recheck()
    for drive in guest.drives:
        flat = content.flatten(content.image(guest.member(drive), "qcow2"), folder / drive.id)
        assert content.check_content(flat, drive)
