"""What the benchmarks of reads have in common around the reading: the lab, failures, the facts."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from qemu_esd.errors import EsdError
from tests.bench.bench import Settings
from tests.bench.outcome import Results, Sample
from tests.bench.stand import Stand, machine_facts, open_stand

# The figures of each cell of the table: (row, way) → by the names of measures.
Measured = Mapping[tuple[str, str], Mapping[str, float]]


@dataclass(frozen=True)
class Task:
    """What is measured of one moved guest: run, cells of the table, and how their figures are had."""

    run: int
    cells: tuple[tuple[str, str], ...]
    work: Callable[[Stand], Awaitable[Measured]]


async def measure(name: str, settings: Settings, tasks: Iterable[Task], **facts: object) -> Results:
    """Do all tasks in one lab, whatever becomes of each."""
    when, known = datetime.now(UTC).isoformat(timespec="seconds"), machine_facts()
    samples: list[Sample] = []
    async with open_stand(settings.rate) as stand:
        for task in tasks:
            samples += await _samples(stand, task)
            stand.sweep()
    return Results(name, when, {**known, "runs": settings.runs, "link_rate": settings.rate, **facts}, tuple(samples))


async def _samples(stand: Stand, task: Task) -> list[Sample]:
    try:
        seen = await task.work(stand)
        samples = [Sample(row, way, task.run, seen[row, way]) for row, way in task.cells]
    except (EsdError, AssertionError, TimeoutError) as error:
        why = f"{type(error).__name__}: {error}"
        samples = [Sample(row, way, task.run, None, why) for row, way in task.cells]
    for sample in samples:
        _say(sample)
    return samples


def _say(sample: Sample) -> None:
    told = sample.why if sample.figures is None else ", ".join(f"{k} {v:.4g}" for k, v in sample.figures.items())
    print(f"  run {sample.run + 1}  {sample.row:24} {sample.way:20} {told}", file=sys.stderr, flush=True)
