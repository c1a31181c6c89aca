"""The benchmark `return`: what it costs to go home after a little has been written on the other host.

everything          from the source to a host that knows nothing of the disk
home, settled       back again, after CHANGED of the disk was written there; the old image still lies at home, put aside
home, not settled   the same with a guest that was moved with `redirect`: the other host has what was written there, and
                    all else never left home

seconds   from the command until settled
bytes     over the link, both ways, from the handover until settled: the disk, and not the memory
changed   the same per byte of the clusters that the guest has written; 1.05 is what there is to be reached
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime

from qemu_esd import api
from qemu_esd.errors import EsdError
from qemu_esd.model.policy import Handler
from qemu_esd.units import GIB, MIB, human_bytes
from tests.bench.bench import Bench, Measure, Settings, Unit
from tests.bench.outcome import Results, Sample
from tests.bench.rows import FrontDrive, Row, parse_row
from tests.bench.stand import Stand, machine_facts, open_stand
from tests.integration.support.guest import MEMORY, Guest
from tests.integration.support.machine import Machine

NAME = "bench"
LOAD = "esd.mode=idle"
CHANGED, CLUSTER = 0.01, 64 << 10
EVERYTHING, SETTLED, NOT_SETTLED = "everything", "home, settled", "home, not settled"
FULL, QUICK = (Row(GIB, GIB),), (Row(128 * MIB, 128 * MIB),)


async def run(settings: Settings) -> Results:
    """Measure everything. One line of progress per way on stderr."""
    when, facts = datetime.now(UTC).isoformat(timespec="seconds"), machine_facts()
    samples: list[Sample] = []
    async with open_stand(settings.rate) as stand:
        for number in range(settings.runs):
            for row in _rows(settings):
                async for sample in _samples(stand, row, number):
                    samples.append(sample)
                    _say(sample)
        facts |= {"accel": stand.accel(), "guest_memory_mib": MEMORY >> 20, "changed": CHANGED, "tls": True}
    facts |= {"runs": settings.runs, "bound_s": settings.bound, "link_rate": settings.rate}
    return Results("return", when, facts, tuple(samples))


def _rows(settings: Settings) -> tuple[Row, ...]:
    return tuple(map(parse_row, settings.disks)) or (QUICK if settings.quick else FULL)


async def _samples(stand: Stand, row: Row, number: int) -> AsyncIterator[Sample]:
    """Two guests, one after the other: each goes away, writes, and goes home."""
    for away, ways in ((Handler.ON_DEMAND, (EVERYTHING, SETTLED)), (Handler.REDIRECT, (None, NOT_SETTLED))):
        stand.sweep()
        way: str = ways[1]
        try:
            drive = row.drive()
            guest = Guest(NAME, stand.a, [drive])
            await guest.start(stand.image, LOAD)
            out = await _move(stand, guest, stand.b, away, settle=ways[0] is not None)
            written = await _write(guest, drive)
            if ways[0] is not None:
                yield Sample(row.name, ways[0], number, _figures(out, written))
            home = await _move(stand, guest, stand.a, Handler.ON_DEMAND, settle=True)
            yield Sample(row.name, way, number, _figures(home, written))
        except (EsdError, AssertionError, TimeoutError) as error:
            yield Sample(row.name, way, number, None, f"{type(error).__name__}: {error}")
        finally:
            stand.sweep()


async def _move(stand: Stand, guest: Guest, to: Machine, handler: Handler, *, settle: bool) -> tuple[float, int]:
    """Seconds of all of it, and bytes over the link after the handover."""
    started = time.monotonic()
    await guest.migrate(to, handler, until_settled=False, report=lambda _: None)
    before = stand.link_bytes()
    if settle:
        await api.settle_guest(guest.name, to.name, lambda *_: None)
    return time.monotonic() - started, stand.link_bytes() - before


async def _write(guest: Guest, drive: FrontDrive) -> int:
    """Write whole clusters all over the disk; returns how many bytes."""
    count = max(1, round(drive.size * CHANGED / CLUSTER))
    for number in range(count):
        assert await guest.write(drive, number * (drive.size // count) // CLUSTER * CLUSTER, CLUSTER) == 0
    await guest.sync()
    return count * CLUSTER


def _figures(moved: tuple[float, int], written: int) -> dict[str, float]:
    seconds, link = moved
    return {"seconds": round(seconds * 1000, 1), "bytes": link, "changed": round(link / written, 3)}


def _say(sample: Sample) -> None:
    told = sample.why if sample.figures is None else _brief(sample.figures)
    print(f"  run {sample.run + 1}  {sample.row:24} {sample.way:20} {told}", file=sys.stderr, flush=True)


def _brief(figures: Mapping[str, float]) -> str:
    return f"{figures['seconds'] / 1000:.1f} s, {human_bytes(figures['bytes'])} over the link"


BENCH = Bench(
    "return",
    "time and bytes to go home after 1 % of the disk was written on the other host, against moving everything",
    (EVERYTHING, SETTLED, NOT_SETTLED),
    (
        Measure("seconds", "settled after", Unit.SECONDS),
        Measure("bytes", "bytes over the link", Unit.BYTES, drawn="MiB over the link until settled"),
        Measure("changed", "bytes over the link per byte written", Unit.TIMES),
    ),
    run,
)
