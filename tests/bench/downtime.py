"""The benchmark `downtime`: for how long the guest stands still, against the same guest on shared storage.

There nothing but memory and CPU has to move: that is the floor. What is measured: one_move.py.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime

from qemu_esd.units import MIB
from tests.bench import shared
from tests.bench.bench import Bench, Measure, Settings, Unit, turns
from tests.bench.one_move import Move, Way, on_demand, sample
from tests.bench.outcome import Results, Sample
from tests.bench.rows import LOAD, FrontDrive
from tests.bench.stand import machine_facts, open_stand
from tests.integration.support.guest import MEMORY

SHARED, ON_DEMAND = "shared storage", "qemu-esd on-demand"
WAYS: dict[str, Way] = {SHARED: shared.move, ON_DEMAND: on_demand}
SIZE = 256 * MIB


@dataclass(frozen=True)
class Row:
    """A guest by what it does."""

    name: str
    load: str


IDLE = Row("hardly busy", LOAD)
# Less than goes over in the downtime that QEMU allows itself, or it would never end.
DIRTIER = Row(
    "writes 32 MiB/s to 16 MiB of memory", LOAD.replace("=verify", "=verify,dirty") + " esd.dirty=16 esd.dirtyrate=32"
)


async def run(settings: Settings) -> Results:
    """Measure everything. One line of progress per migration on stderr."""
    when, facts = datetime.now(UTC).isoformat(timespec="seconds"), machine_facts()
    samples: list[Sample] = []
    async with open_stand(settings.rate) as stand:
        for number, row, way in turns(settings.runs * (1 if settings.quick else 2), (IDLE, DIRTIER), tuple(WAYS)):
            drive = FrontDrive("vda", seed=7, size=SIZE, data=SIZE)
            move = Move(drive, row.load, WAYS[way], settings.bound)
            samples.append(await sample(stand, row.name, way, number, move))
            _say(samples[-1])
        facts |= {"accel": stand.accel(), "guest_memory_mib": MEMORY >> 20, "load": LOAD, "tls": True}
    facts |= {"runs": settings.runs, "bound_s": settings.bound, "link_rate": settings.rate}
    return Results("downtime", when, facts, tuple(samples))


def _say(sample: Sample) -> None:
    told = sample.why if sample.figures is None else f"downtime {sample.figures['downtime']:.0f} ms"
    print(f"  run {sample.run + 1}  {sample.row:40} {sample.way:20} {told}", file=sys.stderr, flush=True)


BENCH = Bench(
    "downtime",
    "for how long the guest stands still; against the same guest on storage that both hosts share",
    tuple(WAYS),
    (
        Measure("downtime", "downtime", Unit.MILLIS, drawn="Milliseconds of downtime"),
        Measure("qemu", "QEMU's own downtime", Unit.MILLIS),
        Measure("silent", "silent, seen from outside", Unit.MILLIS),
        Measure("longest_io", "longest I/O", Unit.MILLIS),
        Measure("running", "runs on the target after", Unit.SECONDS),
    ),
    run,
)
