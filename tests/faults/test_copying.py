"""What happens to a disk while it is brought over: connections that break, ranges that the guest clears."""

from __future__ import annotations

import asyncio
import random
import zlib

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.errors import UnfinishedError
from qemu_esd.model.policy import Handler
from qemu_esd.model.progress import Progress
from tests.faults import report
from tests.faults.rows import What
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet

pytestmark = pytest.mark.lab

VDA, VDB = Drive("vda", 7, size=32 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1)
READS = "esd.mode=verify esd.rate=200 esd.area=1M esd.mix=10/10/80"
BREAKS = 12


async def test_connections_break_while_data_moves(fleet: Fleet) -> None:
    """Each break is in the middle of requests. No byte may be made up for those that were lost."""
    guest = await fleet.boot(VDA, VDB, load=READS)
    breaks = list[int]()

    def hear(what: What) -> None:
        if isinstance(what, Progress) and what.what == "vda" and 0 < what.done < what.total and len(breaks) < BREAKS:
            breaks.append(what.done)
            (where,) = fleet.a.listening()
            port = where.rpartition(":")[2]
            fleet.b.run("ss", "-K", "state", "established", "dport", "=", f":{port}")

    said = "done"
    try:
        await guest.migrate(fleet.b, Handler.BACKGROUND, report=hear, bandwidth=4 * MIB)
    except UnfinishedError as error:
        said = f"{type(error).__name__} ({error.exit_status})"
        guest.arrived(fleet.b)
        await api.settle_guest("vm1", "hostB", lambda *_: None)
    assert len(breaks) >= 3
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    again = "nothing" if said == "done" else "settle"
    report.note(report.Line(f"{len(breaks)} connections break", "settling", said, again, "hostB"))
    await fleet.finish(guest)


async def test_ranges_are_cleared_while_data_moves(fleet: Fleet) -> None:
    """Zeroes stay zeroes, also where the copy comes later; a discarded range is as it was, or zeroes."""
    guest = await fleet.boot(VDA, load="esd.mode=idle")
    await guest.migrate(fleet.b, Handler.ON_DEMAND, bandwidth=2 * MIB)
    settling = asyncio.ensure_future(api.settle_guest("vm1", "hostB", lambda *_: None))
    places = random.Random(7).sample(range(0, VDA.size, 64 << 10), 60)
    cleared = dict[int, tuple[str, int]]()
    for number, start in enumerate(places):
        # Parts of clusters too, and pieces that end in the next one.
        word, offset, length = ("zero", "discard")[number % 2], start + 4096 * (number % 5), 4096 * (1 + number % 13)
        line = await guest.ask(f"{word} vda {offset} {length}")
        assert line.number("errno") == 0
        cleared[offset] = (word, length)
        if settling.done():
            break
    during = len(cleared)
    await settling
    for offset, (word, length) in cleared.items():
        found = int((await guest.ask(f"read vda {offset} {length}")).values["crc"], 16)
        allowed = [zlib.crc32(bytes(length))] + [zlib.crc32(VDA.expected(offset, length))] * (word == "discard")
        assert found in allowed, (word, offset, length)
    assert during > 10
    untouched = [at for at in range(0, VDA.size, 64 << 10) if at not in places and at - (64 << 10) not in places]
    for offset in untouched[::7]:
        line = await guest.ask(f"read vda {offset} {64 << 10}")
        assert int(line.values["crc"], 16) == zlib.crc32(VDA.expected(offset, 64 << 10))
    report.note(report.Line(f"guest clears {during} ranges", "settling", "done", "nothing", "hostB"))
    await fleet.finish(guest)
