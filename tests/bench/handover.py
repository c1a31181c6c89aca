"""The benchmark `handover`: the longest I/O of a guest while the path handler takes the images and its QEMU ends.

The guest reads all over a disk of which nothing has been moved, so that its reads are answered by the path handler
before, while and after. Against the same guest a moment later, when nothing is handed over. By the guest's own clock,
which stands still while it does: the downtime is not in it. No request may fail.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from qemu_esd.errors import EsdError
from qemu_esd.units import MIB
from tests.bench.bench import Bench, Measure, Settings, Unit
from tests.bench.one_move import AROUND_SECONDS, BEATS, NAME, on_demand
from tests.bench.outcome import Results, Sample
from tests.bench.rows import FrontDrive
from tests.bench.stand import Stand, machine_facts, open_stand
from tests.bench.witness import Beat, watching
from tests.integration.support.guest import MEMORY, Guest

QUIET, HANDOVER = "nothing handed over", "handover"
SIZE = 512 * MIB
LOAD = f"esd.mode=verify esd.rate=200 esd.mix=5/5/90 esd.spread=0 esd.area={16 * MIB}"
ROW = "200 operations per second, 90 % of them reads anywhere"


async def run(settings: Settings) -> Results:
    """Measure everything. One line of progress per migration on stderr."""
    when, facts = datetime.now(UTC).isoformat(timespec="seconds"), machine_facts()
    samples: list[Sample] = []
    async with open_stand(settings.rate) as stand:
        for number in range(settings.runs * (1 if settings.quick else 3)):
            samples += await _samples(stand, number, settings.bound)
            _say(samples[-2:])
        facts |= {"accel": stand.accel(), "guest_memory_mib": MEMORY >> 20, "load": LOAD, "tls": True}
    return Results("handover", when, facts | {"runs": settings.runs, "link_rate": settings.rate}, tuple(samples))


async def _samples(stand: Stand, number: int, bound: float) -> list[Sample]:
    stand.sweep()
    try:
        during, later = await _measure(stand, bound)
        return [_sample(QUIET, number, later), _sample(HANDOVER, number, during)]
    except (EsdError, AssertionError, TimeoutError) as error:
        return [Sample(ROW, way, number, None, f"{type(error).__name__}: {error}") for way in (QUIET, HANDOVER)]
    finally:
        stand.sweep()


async def _measure(stand: Stand, bound: float) -> tuple[Sequence[Beat], Sequence[Beat]]:
    """The lines of the load on the target until the handover was over, and as many from then on."""
    drive = FrontDrive("vda", seed=7, size=SIZE, data=SIZE)
    guest = Guest(NAME, stand.a, [drive])
    await guest.start(stand.image, LOAD)
    async with watching(NAME, stand.a, stand.b) as witness:
        async with asyncio.timeout(AROUND_SECONDS):
            await witness.hear(stand.a.name, BEATS)
        async with asyncio.timeout(bound):
            await on_demand(guest, drive, stand.b)
        async with asyncio.timeout(AROUND_SECONDS):
            # The line that is under way speaks of the handover too.
            await witness.hear(stand.b.name, 1)
            during = witness.beats_of(stand.b.name)
            await witness.hear(stand.b.name, len(during))
    return during, witness.beats_of(stand.b.name)[len(during) :]


def _sample(way: str, number: int, beats: Sequence[Beat]) -> Sample:
    for word in ("err", "bad"):
        assert beats[-1].line.number(word) == 0, f"the guest met an error: {dict(beats[-1].line.values)}"
    return Sample(ROW, way, number, {"longest_io": max(beat.line.number("istall") for beat in beats)})


def _say(samples: Sequence[Sample]) -> None:
    for sample in samples:
        told = sample.why if sample.figures is None else f"longest I/O {sample.figures['longest_io']:.0f} ms"
        print(f"  run {sample.run + 1}  {sample.way:20} {told}", file=sys.stderr, flush=True)


BENCH = Bench(
    "handover",
    "the longest I/O while the path handler takes the images; against the same guest while nothing is handed over",
    (QUIET, HANDOVER),
    (Measure("longest_io", "longest I/O", Unit.MILLIS, drawn="Milliseconds of the longest I/O"),),
    run,
)
