"""The benchmark `switchover`: how long until the guest runs elsewhere, and what it notices, by size of its disk.

The same guest is moved by qemu-esd (on-demand) and by the usual pre-copy, in turns, so that whatever else happens
on the machine happens to both. What is measured: one_move.py.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tests.bench import precopy
from tests.bench.bench import Bench, Measure, Settings, Unit, turns
from tests.bench.one_move import Move, Way, on_demand, sample
from tests.bench.outcome import Results, Sample
from tests.bench.rows import LOAD, QUICK, ROWS, Row, parse_row
from tests.bench.stand import machine_facts, open_stand
from tests.integration.support.guest import MEMORY

# What takes longer is measured once: more runs would take the day and change no order of magnitude.
ONCE_SECONDS = 45.0

ON_DEMAND, PRE_COPY = "qemu-esd on-demand", "pre-copy mirror"
WAYS: dict[str, Way] = {ON_DEMAND: on_demand, PRE_COPY: precopy.move}


async def run(settings: Settings) -> Results:
    """Measure everything. One line of progress per migration on stderr."""
    when, facts = datetime.now(UTC).isoformat(timespec="seconds"), machine_facts()
    samples: list[Sample] = []
    async with open_stand(settings.rate) as stand:
        for number, row, way in turns(settings.runs, _rows(settings), tuple(WAYS)):
            if not any(_too_slow(old) for old in samples if (old.row, old.way) == (row.name, way)):
                move = Move(row.drive(), LOAD, WAYS[way], settings.bound)
                samples.append(await sample(stand, row.name, way, number, move))
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
