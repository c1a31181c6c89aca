"""Disks that fail, on either side: the guest is on one host, waits or goes on there, and somebody says why."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd.errors import RolledBackError
from qemu_esd.model.policy import Handler
from qemu_esd.model.progress import Progress
from tests.faults import report
from tests.faults.report import thorough
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.inside import qemu_facts, running_on, tell
from tests.integration.support.machine import SRV, STATE, ended
from tests.integration.test_rollback import places
from tests.support.bad_disk import Fault, bad_disk

pytestmark = pytest.mark.lab

VDA, VDB = Drive("vda", 7, size=16 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1)
LOAD = "esd.mode=verify esd.rate=100 esd.area=1M esd.spread=0 esd.mix=50/50/0"
FRESH = (6 * MIB, MIB // 2)


@thorough
async def test_the_source_cannot_flush_when_it_is_to_give_the_guest_away(fleet: Fleet) -> None:
    """It keeps the guest, which never notices."""
    with bad_disk(fleet.a, SRV) as disk:
        guest = await fleet.boot(VDA, VDB, load="esd.mode=idle")
        before, inside = places(fleet), await qemu_facts(guest)
        for drive in guest.drives:
            assert await guest.write(drive, *FRESH) == 0

        def hear(what: object) -> None:
            if isinstance(what, Progress) and what.what == "RAM":
                disk.fail(Fault("flush", ""))

        with pytest.raises(RolledBackError, match="on hostA as before") as failed:
            await guest.migrate(fleet.b, Handler.ON_DEMAND, report=hear)
        assert disk.hits() > 0
        disk.mend()
        assert await running_on(fleet.machines, "vm1") == ["hostA"]
        assert (places(fleet), await qemu_facts(guest)) == (before, inside)
        await guest.sync()
        for drive in guest.drives:
            assert await guest.read(drive, *FRESH) == 0
        # Newer QEMUs say it themselves.
        assert re.search(r"hostA: .*can its disks be flushed\?|Input/output error", str(failed.value)), failed.value
        report.note(report.Line("source cannot flush", "memory moves", "RolledBackError (1)", "nothing", "hostA"))
        await fleet.finish(guest, settle=False)


@thorough
async def test_the_target_cannot_write(fleet: Fleet) -> None:
    """The guest waits on the target, and nowhere else."""
    with bad_disk(fleet.b, f"{STATE}/disks") as disk:
        guest = await fleet.boot(VDA, VDB, load=LOAD)
        await guest.migrate(fleet.b, Handler.ON_DEMAND)
        await guest.is_well()
        disk.fail(Fault("write", f".{guest.suid(VDA)}."))
        writing = asyncio.ensure_future(guest.write(VDA, *FRESH))
        async with asyncio.timeout(60):
            while (await tell(guest, "query-status"))["status"] != "io-error":
                await asyncio.sleep(0.1)
        assert await running_on(fleet.machines, "vm1") == []
        told = await say("status", "vm1")
        words = "vda has stopped it: a read or write of its image on hostB, or of what is still on hostA has failed"
        assert (words in told.out, "qemu-esd vm cont vm1" in told.out) == (True, True), told
        disk.mend()
        assert (await say("vm", "cont", "vm1")).status == 0
        assert await writing == 0
        assert await running_on(fleet.machines, "vm1") == ["hostB"]
        await guest.is_well()
        await guest.pause()
        await guest.recheck()
        report.note(report.Line("target cannot write", "handed over", "-", "mended, vm cont (0)", "hostB"))
        await fleet.finish(guest)


def _put(offset: int, content: bytes) -> Callable[[Path], None]:
    def put(image: Path) -> None:
        with image.open("r+b") as file:
            file.seek(offset)
            file.write(content)

    return put


# Of a qcow2's header: the magic, the place of the L1 table, and the bit that says that it is known to be corrupt.
CORRUPT = {
    "header": (_put(0, b"\0"), "not in qcow2 format"),
    "L1 table": (_put(40, bytes([0, 0, 0, 0, 0, 1, 2, 3])), "L1 table"),
    "corrupt bit": (_put(72, bytes([0, 0, 0, 0, 0, 0, 0, 2])), "corrupt"),
}


@thorough
async def test_a_corrupt_overlay_is_not_opened(fleet: Fleet) -> None:
    """The reason is told, and nothing is repaired behind one's back."""
    guest = await fleet.boot(VDA, load="esd.mode=idle")
    await guest.migrate(fleet.b, Handler.ON_DEMAND)
    assert await guest.write(VDA, *FRESH) == 0
    await guest.sync()
    pid = guest.qemu().pid
    guest.kill()
    await ended(pid)
    guest.leave_terminal()
    image = guest.member(VDA)
    sound = image.read_bytes()
    for what, (corrupt, words) in CORRUPT.items():
        corrupt(image)
        found = image.read_bytes()
        told = await say("vm", "start", "vm1")
        assert (told.status, words in told.err, "Traceback" in told.err) == (1, True, False), told
        assert image.read_bytes() == found
        assert await running_on(fleet.machines, "vm1") == []
        image.write_bytes(sound)
        report.note(report.Line(f"corrupt overlay: {what}", "handed over", "-", "vm start (1), mended", "hostB"))
    started = await say("vm", "start", "vm1")
    assert started.status == 0, started
    await guest.settle_in(booted=True)
    line = await guest.ask(f"read vda {FRESH[0]} {FRESH[1]}")
    assert line.number("errno") == 0
    await fleet.finish(guest)
