"""The benchmark `degradation`: what the guest notices while its disk is moved in the background.

One guest per way, with a load that does as much as it can, all over its disk or in 64 MiB at the end of it. Seen by the
guest's own lines, one a second, and by QEMU's histogram of the latencies of its device:

before       on the source, before anything is moved
moving       from the command until settled, with no limit
limited      the same with --bandwidth LIMIT
auto         the same with --bandwidth auto
held         moved with on-demand, and no job at all: what reads of absent data cost by nature, the least there is
after        settled

iops      operations per second
p99       99 of 100 reads and writes took at most so long (the upper end of a bin: bins grow by a fifth)
longest   the longest single I/O by the guest's clock
took      how long the move was

The series, one point per line of the guest, are in the JSON (`series`) and drawn as a curve.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from qemu_esd import api
from qemu_esd.errors import EsdError
from qemu_esd.model.pace import AUTO, Bandwidth
from qemu_esd.model.policy import Handler
from qemu_esd.model.request import Request
from qemu_esd.qmp.session import Session
from qemu_esd.units import GIB, MIB
from tests.bench.bench import Bench, Measure, Settings, Unit
from tests.bench.outcome import Results, Sample
from tests.bench.rows import FrontDrive, Row, parse_row
from tests.bench.stand import Stand, machine_facts, open_stand
from tests.bench.witness import Beat, Witness, watching
from tests.integration.support.guest import MEMORY, Guest

NAME = "bench"
LOAD = "esd.mode=verify esd.rate=0 esd.area=64M"
BEFORE, MOVING, LIMITED, PACED, HELD, AFTER = "before", "moving", "limited", "auto", "held", "after"
# Lines of the guest before the move and after it.
BEATS, QUICK_BEATS = 8, 3
AROUND_SECONDS = 120.0
LIMIT = 32 * MIB
HOT = 64 * MIB
FULL, QUICK = Row(GIB, GIB), Row(128 * MIB, 128 * MIB)
# From 10 µs to about a minute.
BINS = tuple(round(10_000 * 1.2**number) for number in range(86))
WAYS: dict[str, Bandwidth] = {MOVING: None, LIMITED: LIMIT, PACED: AUTO, HELD: None}
# Seconds since the command, operations per second, longest I/O (ms).
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Conditions:
    """A row: the disk, and whether the guest uses the HOT bytes at its end only."""

    disk: Row
    hot: bool

    @property
    def name(self) -> str:
        return f"{self.disk.name}, used {'at its end' if self.hot else 'all over'}"

    @property
    def load(self) -> str:
        return f"{LOAD} esd.hot={HOT}@{self.disk.data - HOT}" if self.hot else LOAD


@dataclass(frozen=True)
class Phase:
    """What was seen of the guest from one moment to another."""

    points: tuple[Point, ...]
    p99: float | None


async def run(settings: Settings) -> Results:
    """Measure everything. One line of progress per way on stderr."""
    when, facts = datetime.now(UTC).isoformat(timespec="seconds"), machine_facts()
    samples: list[Sample] = []
    series: dict[str, list[Point]] = {}
    async with open_stand(settings.rate) as stand:
        for number in range(settings.runs):
            for row in _rows(settings):
                for way in WAYS if number % 2 == 0 else reversed(WAYS):
                    samples += await _samples(stand, row, way, number, settings, series)
        facts |= {"accel": stand.accel(), "guest_memory_mib": MEMORY >> 20, "load": LOAD, "limit": LIMIT, "tls": True}
    facts |= {"runs": settings.runs, "bound_s": settings.bound, "link_rate": settings.rate, "series": series}
    return Results("degradation", when, facts, tuple(samples))


def _rows(settings: Settings) -> list[Conditions]:
    disks = tuple(map(parse_row, settings.disks)) or (QUICK if settings.quick else FULL,)
    return [Conditions(disk, hot) for disk in disks for hot in (False, True)]


async def _samples(
    stand: Stand, row: Conditions, way: str, number: int, settings: Settings, series: dict[str, list[Point]]
) -> list[Sample]:
    """One guest: before, while it moves, and, for the way without a limit, after."""
    stand.sweep()
    beats = QUICK_BEATS if settings.quick else BEATS
    found: list[Sample] = []
    try:
        async with asyncio.timeout(settings.bound + AROUND_SECONDS):
            async for name, phase, took in _phases(stand, row, way, beats):
                # Before and after are the same in all ways: once per run is enough.
                if way == MOVING or name == way:
                    found.append(Sample(row.name, name, number, _figures(phase, took)))
                series.setdefault(f"{row.name}, {way}, run {number + 1}", []).extend(phase.points)
    except (EsdError, AssertionError, TimeoutError) as error:
        found.append(Sample(row.name, way, number, None, f"{type(error).__name__}: {error}"))
    finally:
        stand.sweep()
    for sample in found:
        _say(sample)
    return found


async def _phases(stand: Stand, row: Conditions, way: str, beats: int) -> AsyncIterator[tuple[str, Phase, float]]:
    drive, here, there = row.disk.drive(), stand.a.name, stand.b.name
    guest = Guest(NAME, stand.a, [drive])
    await guest.start(stand.image, row.load)
    async with watching(NAME, stand.a, stand.b) as witness:
        await witness.hear(here, 1)
        await _count(witness.monitors[here], drive)
        await witness.hear(here, beats)
        started = time.time()
        yield BEFORE, await _phase(witness, 0, started, witness.monitors[here], drive), 0.0
        first = len(witness.beats) - 1
        await _move(stand, witness, drive, way)
        if way == HELD:
            await witness.hear(there, beats)
            yield way, await _phase(witness, first, started, witness.monitors[there], drive), 0.0
            return
        took = time.time() - started
        yield way, await _phase(witness, first, started, witness.monitors[there], drive), took
        last = len(witness.beats) - 1
        await _count(witness.monitors[there], drive)
        await witness.hear(there, beats)
        yield AFTER, await _phase(witness, last, started, witness.monitors[there], drive), 0.0


async def _move(stand: Stand, witness: Witness, drive: FrontDrive, way: str) -> None:
    handler = Handler.ON_DEMAND if way == HELD else Handler.BACKGROUND
    request = Request(NAME, stand.b.name, handler, source=stand.a.name, bandwidth=WAYS[way])
    moving = asyncio.ensure_future(api.migrate(request, lambda _: None))
    try:
        await witness.until(lambda: ("RESUME", stand.b.name) in witness.events)
        await _count(witness.monitors[stand.b.name], drive)
        await moving
    finally:
        moving.cancel()


# ---- what is seen


def _backend(drive: FrontDrive) -> str:
    """What counts is not the PCI device, but the disk in it."""
    return f"/machine/peripheral/{drive.id}/virtio-backend"


async def _count(monitor: Session, drive: FrontDrive) -> None:
    """Count the latencies of the device from now on."""
    await monitor.execute("block-latency-histogram-set", id=_backend(drive), boundaries=list(BINS))


async def _phase(witness: Witness, first: int, started: float, monitor: Session, drive: FrontDrive) -> Phase:
    rows = await monitor.execute("query-blockstats")
    stats = next(row["stats"] for row in rows if row.get("qdev") == _backend(drive))
    return Phase(points(witness.beats[first:], started), p99(_bins(stats)))


def _bins(stats: Mapping[str, Any]) -> list[int]:
    """Reads and writes together."""
    both = [stats[name]["bins"] for name in ("rd_latency_histogram", "wr_latency_histogram")]
    return [sum(pair) for pair in zip(*both, strict=True)]


def p99(bins: Sequence[int]) -> float | None:
    """In ms, the upper end of the bin in which the 99th of 100 lies; None if there is nothing, or no upper end."""
    wanted, seen = sum(bins) * 0.99, 0
    for upper, count in zip(BINS, bins, strict=False):
        seen += count
        if seen >= wanted > 0:
            return round(upper / 1e6, 3)
    return None


def points(beats: Sequence[Beat], started: float) -> tuple[Point, ...]:
    """One per line but the first, which only says what was before."""
    return tuple(
        (round(now.at - started, 2), round(_per_second(before, now), 1), now.line.number("istall"))
        for before, now in pairwise(beats)
    )


def _per_second(before: Beat, now: Beat) -> float:
    """By the clock on the wall: a guest that stands still does nothing."""
    return (now.line.number("ops") - before.line.number("ops")) / max(now.at - before.at, 0.001)


def _figures(phase: Phase, took: float) -> dict[str, float]:
    times, rates, stalls = zip(*phase.points, strict=True)
    figures = {"iops": round(sum(rates) / len(times), 1), "longest": max(stalls)}
    if phase.p99 is not None:
        figures["p99"] = phase.p99
    return figures | ({"took": round(took * 1000, 1)} if took else {})


def _say(sample: Sample) -> None:
    told = sample.why if sample.figures is None else ", ".join(f"{k} {v:g}" for k, v in sample.figures.items())
    print(f"  run {sample.run + 1}  {sample.row:24} {sample.way:10} {told}", file=sys.stderr, flush=True)


BENCH = Bench(
    "degradation",
    "what the guest notices while its disk is moved in the background: without a limit, with one, with one that adapts "
    "to it, and with no move at all; against before",
    (BEFORE, *WAYS, AFTER),
    (
        Measure("iops", "operations of the guest", Unit.PER_SECOND, drawn="Operations of the guest per second"),
        Measure("p99", "99 of 100 took at most", Unit.MILLIS, drawn="Milliseconds within which 99 of 100 were done"),
        Measure("longest", "longest I/O", Unit.MILLIS),
        Measure("took", "settled after", Unit.SECONDS),
    ),
    run,
)
