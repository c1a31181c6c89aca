"""The benchmark `hot-first`: what it brings that the parts of a disk which the guest touches move first.

One guest per way, which reads at random in some hot parts of a full disk, and nowhere else. It is moved in the
background over a slow link, and the mirror comes to those parts late, or at the very end. Per way:

in order    the mirror alone, from the first byte to the last
hot first   beside it, what is around the places that the guest has just touched

remote    reads of the guest that the source had to answer, from its first moment on the target until settled
share     the same, per hundred reads of the guest
last      after so long on the target the last of them was asked
iops      reads of the guest per second
longest   the longest single read by the guest's clock
took      how long the whole move was

A read that the source has to answer is counted by QEMU itself: its trace event for a copy on read tells of each, with
its length. The guest reads 4 KiB at a time, and nobody else does. Reads that only wait, because somebody else brings
the same cluster just then, are not among them. The series are these reads per second.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

from qemu_esd import api
from qemu_esd.errors import EsdError
from qemu_esd.hosts import lab
from qemu_esd.model.policy import Handler
from qemu_esd.model.request import Request
from qemu_esd.nbd import Range
from qemu_esd.phases import hot
from qemu_esd.units import GIB, MIB
from tests.bench.bench import Bench, Measure, Settings, Unit, turns
from tests.bench.outcome import Results, Sample
from tests.bench.rows import Row
from tests.bench.stand import Stand, machine_facts, open_stand
from tests.bench.witness import Beat, Witness, watching
from tests.integration.support.guest import MEMORY, Guest
from tests.integration.support.machine import STATE, Machine

NAME = "bench"
IN_ORDER, HOT_FIRST = "in order", "hot first"
WAYS = (IN_ORDER, HOT_FIRST)
# Reads only, as many as a guest makes that does something else too.
LOAD = "esd.mode=verify esd.rate=400 esd.mix=0/0/100"
BLOCK = 4096
EVENT = "bdrv_co_do_copy_on_readv"
AROUND_SECONDS = 60.0
LOOK_SECONDS = 0.1
FAST, SLOW = 125_000_000, 12_500_000
# Seconds on the target, reads per second that the source had to answer.
Point = tuple[float, float]


@dataclass(frozen=True)
class Conditions:
    """A row: a full disk of `size` bytes, its hot parts, the link (bytes/s each way)."""

    size: int
    hot: tuple[Range, ...]
    rate: int

    @property
    def name(self) -> str:
        parts = f"{len(self.hot)} x {self.hot[0].length // MIB} MiB" if len(self.hot) > 1 else "64 MiB at the end"
        return f"{self.size // MIB} MiB, {parts}, {self.rate * 8 // 1_000_000} Mbit/s"

    @property
    def load(self) -> str:
        return f"{LOAD} esd.hot={','.join(f'{part.length}@{part.offset}' for part in self.hot)}"


def conditions(size: int, rate: int) -> tuple[Conditions, ...]:
    """One hot part at the end of the disk, and four in its second half."""
    end = (Range(size - 64 * MIB, 64 * MIB),)
    eighth = size // 8
    several = tuple(Range(number * eighth + 5 * MIB, 16 * MIB) for number in range(4, 8))
    return Conditions(size, end, rate), Conditions(size, several, rate)


FULL = (*conditions(GIB, FAST), *conditions(512 * MIB, SLOW))
QUICK = conditions(256 * MIB, SLOW)[:1]


async def run(settings: Settings) -> Results:
    """Measure everything. One line of progress per move on stderr. With a rate, only the rows of that link."""
    when, facts = datetime.now(UTC).isoformat(timespec="seconds"), machine_facts()
    samples: list[Sample] = []
    series: dict[str, list[Point]] = {}
    rows = [row for row in (QUICK if settings.quick else FULL) if settings.rate in (None, row.rate)]
    async with open_stand(None) as stand:
        for number, row, way in turns(settings.runs, rows, WAYS):
            samples.append(await _sample(stand, row, way, number, settings.bound, series))
            _say(samples[-1])
        facts |= {"accel": stand.accel(), "guest_memory_mib": MEMORY >> 20, "load": LOAD, "tls": True}
    facts |= {"runs": settings.runs, "bound_s": settings.bound, "link_rate": settings.rate, "series": series}
    return Results("hot-first", when, facts, tuple(samples))


async def _sample(
    stand: Stand, row: Conditions, way: str, number: int, bound: float, series: dict[str, list[Point]]
) -> Sample:
    stand.sweep()
    try:
        async with asyncio.timeout(bound + AROUND_SECONDS), _link(stand, row.rate):
            figures, points = await _move(stand, row, way)
    except (EsdError, AssertionError, TimeoutError) as error:
        return Sample(row.name, way, number, None, f"{type(error).__name__}: {error}")
    finally:
        stand.sweep()
    series[f"{row.name}, {way}, run {number + 1}"] = points
    return Sample(row.name, way, number, figures)


@asynccontextmanager
async def _link(stand: Stand, rate: int) -> AsyncIterator[None]:
    before = await lab.link_between(stand.a.name, stand.b.name)
    await lab.set_link(replace(before, rate=rate))
    try:
        yield
    finally:
        await lab.set_link(before)


async def _move(stand: Stand, row: Conditions, way: str) -> tuple[dict[str, float], list[Point]]:
    guest = Guest(NAME, stand.a, [Row(row.size, row.size).drive()])
    await guest.start(stand.image, row.load)
    async with watching(NAME, stand.a, stand.b) as witness:
        await witness.hear(stand.a.name, 2)
        started = time.time()
        request = Request(NAME, stand.b.name, Handler.BACKGROUND, source=stand.a.name)
        with _way(way):
            moving = asyncio.ensure_future(api.migrate(request, lambda _: None))
            try:
                remote = await _remote_reads(stand.b, witness, moving)
                await moving
            finally:
                moving.cancel()
        took = time.time() - started
        await witness.hear(stand.b.name, 1)
        arrived = witness.events["RESUME", stand.b.name]
        return _figures(witness.beats_of(stand.b.name), [at - arrived for at in remote], took), per_second(
            [at - arrived for at in remote], started + took - arrived
        )


@contextmanager
def _way(way: str) -> Iterator[None]:
    with ExitStack() as stack:
        if way == IN_ORDER:
            for name in ("before", "keep_first"):
                stack.enter_context(mock.patch.object(hot, name, _nobody))
        yield


async def _nobody(*_: object) -> hot.Heat:
    """In the place of who brings what is hot."""
    return hot.Heat()


# ---- what is seen


async def _remote_reads(target: Machine, witness: Witness, moving: asyncio.Future[Any]) -> list[float]:
    """When QEMU has told of each read of the guest that the source had to answer; returns when `moving` is done."""
    await witness.until(lambda: target.name in witness.monitors)
    await witness.monitors[target.name].execute("trace-event-set-state", name=EVENT, enable=True)
    log, seen = target.path(f"{STATE}/unit/vm-{NAME}/log"), list[float]()
    while not moving.done():
        await asyncio.sleep(LOOK_SECONDS)
        seen += [time.time()] * (guest_reads(log) - len(seen))
    return seen


def guest_reads(log: Path) -> int:
    """Lines as `bdrv_co_do_copy_on_readv bs 0x55d0 offset 4096 bytes 4096 cluster_offset 0 cluster_bytes 16384`."""
    lines = log.read_text(errors="replace").splitlines()
    return sum(EVENT in line and f" bytes {BLOCK} " in line for line in lines)


def per_second(times: list[float], end: float) -> list[Point]:
    """One point per second from 0 to `end`."""
    return [(float(second), float(sum(second <= at < second + 1 for at in times))) for second in range(int(end) + 1)]


def _figures(beats: list[Beat], remote: list[float], took: float) -> dict[str, float]:
    first, last = beats[0].line, beats[-1].line
    reads, seconds = last.number("r") - first.number("r"), beats[-1].at - beats[0].at
    return {
        "remote": len(remote),
        "share": round(100 * len(remote) / max(reads, 1), 2),
        "last": round(max(remote, default=0.0) * 1000, 1),
        "iops": round(reads / max(seconds, 0.001), 1),
        "longest": max(beat.line.number("istall") for beat in beats),
        "took": round(took * 1000, 1),
    }


def _say(sample: Sample) -> None:
    told = sample.why if sample.figures is None else ", ".join(f"{k} {v:g}" for k, v in sample.figures.items())
    print(f"  run {sample.run + 1}  {sample.row:44} {sample.way:10} {told}", file=sys.stderr, flush=True)


BENCH = Bench(
    "hot-first",
    "reads of the guest that the source had to answer while its disk is moved in the background; against moving it in "
    "order",
    WAYS,
    (
        Measure(
            "remote", "reads answered by the source", Unit.COUNT, drawn="Reads of the guest answered by the source"
        ),
        Measure("share", "of a hundred reads", Unit.COUNT),
        Measure("last", "the last of them after", Unit.SECONDS),
        Measure("iops", "reads of the guest", Unit.PER_SECOND),
        Measure("longest", "longest read", Unit.MILLIS),
        Measure("took", "settled after", Unit.SECONDS),
    ),
    run,
)
