"""The benchmark `steps`: where the time from the command to the guest's first instruction on the target goes.

One migration per run, by the command, with `--trace`; the trace of the last run is kept beside the table, for
ui.perfetto.dev. The steps follow each other:

start-up     Python, our modules, and those for ssh
plan         both hosts are reached and looked at, and all is decided
prepare      path handler, overlays, the QEMU on the target
memory       the guest's memory goes over while it runs: QEMU's own work
switchover   the guest stands still: QEMU's own work, and the fence

took   how long it was
ssh    for how long of it at least one program ran on a host
qmp    for how long of it at least one QMP command waited for its answer
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qemu_esd.errors import EsdError
from qemu_esd.units import MIB
from tests.bench.bench import Bench, Measure, Settings, Unit
from tests.bench.outcome import Results, Sample
from tests.bench.rows import LOAD, FrontDrive
from tests.bench.stand import Stand, machine_facts, open_stand
from tests.bench.witness import watching
from tests.integration.support.guest import MEMORY, Guest

NAME = "bench"
SIZE = 256 * MIB
BEATS, AROUND_SECONDS = 2, 120.0
ALL = "all of it"
# A step of ours by the first span of the trace in it; it ends where the next one begins.
FIRST = {"plan": "propose", "prepare": "prepare", "memory": "move memory", "switchover": "commit", "": "write down"}
WAYS = (ALL, "start-up", *(way for way in FIRST if way))
# From and until, in ms since the command.
Window = tuple[float, float]
Event = Mapping[str, Any]


async def run(settings: Settings) -> Results:
    """Measure everything. One line of progress per migration on stderr."""
    when, facts = datetime.now(UTC).isoformat(timespec="seconds"), machine_facts()
    samples: list[Sample] = []
    async with open_stand(settings.rate) as stand:
        for number in range(settings.runs * (1 if settings.quick else 3)):
            samples += await _samples(stand, number, facts)
        facts |= {"accel": stand.accel(), "guest_memory_mib": MEMORY >> 20, "load": LOAD, "tls": True}
    return Results("steps", when, facts | {"runs": settings.runs, "link_rate": settings.rate}, tuple(samples))


async def _samples(stand: Stand, number: int, facts: dict[str, Any]) -> list[Sample]:
    """One migration. Its trace is put into `facts`."""
    stand.sweep()
    row = "one disk, a guest that is hardly busy"
    try:
        async with asyncio.timeout(AROUND_SECONDS):
            facts["trace"] = await _traced(stand)
    except (EsdError, AssertionError, TimeoutError) as error:
        return [Sample(row, ALL, number, None, f"{type(error).__name__}: {error}")]
    finally:
        stand.sweep()
    found = [Sample(row, way, number, figures) for way, figures in read(facts["trace"]["traceEvents"]).items()]
    _say(found, number)
    return found


async def _traced(stand: Stand) -> dict[str, Any]:
    guest = Guest(NAME, stand.a, [FrontDrive("vda", seed=7, size=SIZE, data=SIZE)])
    await guest.start(stand.image, LOAD)
    async with watching(NAME, stand.a, stand.b) as witness:
        await witness.hear(stand.a.name, BEATS)
    with TemporaryDirectory(prefix="esd-bench-") as folder:
        file = Path(folder) / "trace.json"
        words = ("--trace", str(file), "migrate", NAME, stand.b.name, "--policy", "on-demand", "--yes", "--json")
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(sys.executable, "-m", "qemu_esd", *words, stdout=pipe, stderr=pipe)
        _, err = await child.communicate()
        if child.returncode != 0:
            raise EsdError(f"{NAME} was not moved: {err.decode(errors='replace').strip()[-300:]}")
        told: dict[str, Any] = json.loads(file.read_text())
        return told


def read(events: Iterable[Event]) -> dict[str, dict[str, float]]:
    """The figures of each step of a trace."""
    spans = [event for event in events if event["ph"] == "X"]
    return {
        way: {
            "took": round(end - begin, 1),
            "ssh": busy((span for span in spans if span["cat"] == "ssh"), (begin, end)),
            "qmp": busy((span for span in spans if span["cat"] == "QMP"), (begin, end)),
        }
        for way, (begin, end) in windows(spans).items()
    }


def windows(spans: Iterable[Event]) -> dict[str, Window]:
    """From when until when each step was; the trace begins when the command does."""
    begins = {span["name"]: span["ts"] / 1000 for span in reversed(list(spans)) if span["cat"] == "step"}
    marks = [begins[first] for first in FIRST.values()]
    return {ALL: (0.0, marks[-1]), **dict(zip(WAYS[1:], zip((0.0, *marks), marks, strict=False), strict=True))}


def busy(spans: Iterable[Event], window: Window) -> float:
    """For how many ms of a window at least one of the spans was under way."""
    total, reached = 0.0, window[0]
    for span in sorted(spans, key=lambda span: float(span["ts"])):
        begin, end = span["ts"] / 1000, (span["ts"] + span["dur"]) / 1000
        total += max(0.0, min(end, window[1]) - max(begin, reached))
        reached = max(reached, min(end, window[1]))
    return round(total, 1)


def _say(samples: Iterable[Sample], number: int) -> None:
    told = ", ".join(f"{sample.way} {sample.figures['took']:.0f} ms" for sample in samples if sample.figures)
    print(f"  run {number + 1}  {told}", file=sys.stderr, flush=True)


BENCH = Bench(
    "steps",
    "where the time from the command to the guest's first instruction on the target goes",
    WAYS,
    (
        Measure("took", "took", Unit.MILLIS, drawn="Milliseconds of each step"),
        Measure("ssh", "programs on hosts", Unit.MILLIS),
        Measure("qmp", "QMP commands", Unit.MILLIS),
    ),
    run,
)
