"""The benchmark `switchover`: how long until the guest runs elsewhere, and what it notices, by size of its disk.

The same guest is moved by qemu-esd (on-demand) and by the usual pre-copy, in turns, so that whatever else happens
on the machine happens to both. By the witness, in ms and bytes:

running      from the start of the command until the target's QEMU says RESUME
downtime     from STOP on the source until RESUME on the target
qemu         what the source's QEMU says of its own share of it
silent       by how much the latest of the guest's lines, one a second, was late: what is seen from outside
longest_io   the longest single I/O by the guest's own clock, which stands still while the guest does
link         over the link, both ways, until the command was done
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from images.console import LoadLine
from qemu_esd import api
from qemu_esd.errors import EsdError
from qemu_esd.model.policy import Handler
from qemu_esd.model.request import Request
from qemu_esd.qmp import jobs
from qemu_esd.qmp.session import Session
from tests.bench import precopy
from tests.bench.bench import Bench, Measure, Settings, Unit, turns
from tests.bench.outcome import Results, Sample
from tests.bench.rows import LOAD, QUICK, ROWS, FrontDrive, Row, parse_row
from tests.bench.stand import Stand, machine_facts, open_stand
from tests.bench.witness import Witness, watching
from tests.integration.support.guest import MEMORY, Guest
from tests.integration.support.machine import Machine

NAME = "bench"
# Lines of the load before the migration (it has settled in) and after it (it has used its disk there).
BEATS = 2
# For boot and lines; the migration itself has a bound of its own.
AROUND_SECONDS = 120.0

# What takes longer is measured once: more runs would take the day and change no order of magnitude.
ONCE_SECONDS = 45.0

Way = Callable[[Guest, FrontDrive, Machine], Awaitable[None]]


async def on_demand(guest: Guest, drive: FrontDrive, to: Machine) -> None:
    request = Request(guest.name, to.name, Handler.ON_DEMAND, source=guest.machine.name)
    await api.migrate(request, lambda _: None, until_settled=False)


ON_DEMAND, PRE_COPY = "qemu-esd on-demand", "pre-copy mirror"
WAYS: dict[str, Way] = {ON_DEMAND: on_demand, PRE_COPY: precopy.move}


async def run(settings: Settings) -> Results:
    """Measure everything. One line of progress per migration on stderr."""
    when, facts = datetime.now(UTC).isoformat(timespec="seconds"), machine_facts()
    samples: list[Sample] = []
    async with open_stand(settings.rate) as stand:
        for number, row, way in turns(settings.runs, _rows(settings), tuple(WAYS)):
            if not any(_too_slow(old) for old in samples if (old.row, old.way) == (row.name, way)):
                samples.append(await _sample(stand, row, way, number, settings.bound))
                _say(samples[-1])
        facts |= {"accel": stand.accel(), "guest_memory_mib": MEMORY >> 20, "load": LOAD, "tls": True}
    return Results("switchover", when, facts | _plain(settings), tuple(samples))


def _rows(settings: Settings) -> tuple[Row, ...]:
    return tuple(map(parse_row, settings.disks)) or (QUICK if settings.quick else ROWS)


def _too_slow(sample: Sample) -> bool:
    """Once is enough."""
    return sample.unfinished or (sample.figures is not None and sample.figures["running"] > ONCE_SECONDS * 1000)


def _plain(settings: Settings) -> dict[str, Any]:
    return {"runs": settings.runs, "bound_s": settings.bound, "link_rate": settings.rate}


async def _sample(stand: Stand, row: Row, way: str, number: int, bound: float) -> Sample:
    stand.sweep()
    try:
        figures = await _measure(stand, row.drive(), WAYS[way], bound)
        return Sample(row.name, way, number, figures)
    except _NotArrivedError as late:
        return Sample(row.name, way, number, None, str(late), unfinished=True)
    except (EsdError, AssertionError, TimeoutError) as error:
        return Sample(row.name, way, number, None, f"{type(error).__name__}: {error}")
    finally:
        stand.sweep()


class _NotArrivedError(Exception):
    """The migration was not done within its bound."""


async def _measure(stand: Stand, drive: FrontDrive, way: Way, bound: float) -> dict[str, float]:
    guest = Guest(NAME, stand.a, [drive])
    await guest.start(stand.image, LOAD)
    async with watching(NAME, stand.a, stand.b) as witness:
        async with asyncio.timeout(AROUND_SECONDS):
            await witness.hear(stand.a.name, BEATS)
        before, started = stand.link_bytes(), time.time()
        await _within(bound, way(guest, drive, stand.b), witness.monitors[stand.a.name])
        link = stand.link_bytes() - before
        async with asyncio.timeout(AROUND_SECONDS):
            await witness.hear(stand.b.name, BEATS)
    return _figures(witness, stand.a.name, stand.b.name, started, link)


async def _within(bound: float, moving: Awaitable[None], source: Session) -> None:
    try:
        async with asyncio.timeout(bound):
            await moving
    except TimeoutError as error:
        raise _NotArrivedError(f"not finished within {bound:g} s{await _how_far(source)}") from error


async def _how_far(source: Session) -> str:
    shares = [job.done / job.total for job in (await jobs.running(source)).values() if job.total]
    return f" (the copy had done {shares[0]:.0%})" if shares else ""


def _figures(witness: Witness, source: str, target: str, started: float, link: int) -> dict[str, float]:
    running = witness.events["RESUME", target]
    before = [beat for beat in witness.beats_of(source) if beat.at <= started]
    after = [beat for beat in witness.beats if beat.at > started]
    _check(before[-1].line, after[-1].line)
    own = {} if witness.downtime_ms is None else {"qemu": witness.downtime_ms}
    return own | {
        "running": _millis(running - started),
        "downtime": _millis(running - witness.events["STOP", source]),
        "silent": _millis(max(beat.lateness for beat in after) - min(beat.lateness for beat in before)),
        "longest_io": max(beat.line.number("istall") for beat in after),
        "link": link,
    }


def _millis(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _check(before: LoadLine, after: LoadLine) -> None:
    """A guest that has lost data has not been moved. (Before its first write the load may read from the hole.)"""
    for word in ("err", "bad"):
        assert after.number(word) == before.number(word), f"the guest met an error: {dict(after.values)}"
    assert after.number("ops") > before.number("ops"), "the load stands still"


def _say(sample: Sample) -> None:
    told = sample.why if sample.figures is None else _brief(sample.figures)
    print(f"  run {sample.run + 1}  {sample.row:24} {sample.way:20} {told}", file=sys.stderr, flush=True)


def _brief(figures: Mapping[str, float]) -> str:
    return f"running after {figures['running'] / 1000:.2f} s, downtime {figures['downtime']:.0f} ms"


BENCH = Bench(
    "switchover",
    "how long until the guest runs elsewhere, and what it notices, by the size of its disk; against pre-copy",
    tuple(WAYS),
    (
        Measure(
            "running",
            "runs on the target after",
            Unit.SECONDS,
            drawn="Seconds until the guest runs on the target (logarithmic)",
            logarithmic=True,
        ),
        Measure("downtime", "downtime", Unit.MILLIS, drawn="Milliseconds of downtime"),
        Measure("qemu", "QEMU's own downtime", Unit.MILLIS),
        Measure("silent", "silent, seen from outside", Unit.MILLIS),
        Measure("longest_io", "longest I/O", Unit.MILLIS),
        Measure("link", "bytes over the link", Unit.BYTES),
    ),
    run,
)
