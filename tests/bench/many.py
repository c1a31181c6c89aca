"""The benchmark `many`: several guests moved by as many commands, one after another and side by side; against one.

The guests stay in their firmware: what is measured is what a migration costs the controller and the hosts. Per way:

total      until the last one runs on the target and has been handed over
downtime   of the guest that stood still longest, as the command tells it
cpu        of the commands, per guest
memory     of the largest command
handler    of the largest path handler on the source, afterwards
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qemu_esd.errors import EsdError
from qemu_esd.units import MIB, TIB
from tests.bench.bench import Bench, Measure, Settings, Unit, turns
from tests.bench.outcome import Results, Sample
from tests.bench.rows import FrontDrive
from tests.bench.stand import Stand, machine_facts, open_stand
from tests.integration.support.guest import MEMORY, Guest
from tests.integration.support.machine import Machine

IN_TURN, BESIDE = "one after another", "side by side"
WAYS = (IN_TURN, BESIDE)
# As `python -m qemu_esd`, and what the process has used is written to a file at its end.
COMMAND = """
import atexit, json, resource, runpy, sys
def tell(path):
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    open(path, "w").write(json.dumps({"cpu": used.ru_utime + used.ru_stime, "memory": int(peak) << 10}))
atexit.register(tell, sys.argv.pop(1))
runpy.run_module("qemu_esd", run_name="__main__")
"""


@dataclass(frozen=True)
class Row:
    """So many guests, each with a sparse disk of `size` bytes."""

    count: int
    size: int = 64 * MIB

    @property
    def name(self) -> str:
        disk = "1 TiB, sparse" if self.size == TIB else "64 MiB"
        return f"{self.count} guest{'s' if self.count > 1 else ''}, disk of {disk}"


ROWS = tuple(Row(count) for count in (1, 2, 4, 8, 16))
HUGE = Row(1, TIB)
QUICK = (Row(2), HUGE)


async def run(settings: Settings) -> Results:
    """Measure everything. One line of progress per sample on stderr."""
    when, facts = datetime.now(UTC).isoformat(timespec="seconds"), machine_facts()
    samples: list[Sample] = []
    async with open_stand(settings.rate) as stand:
        for number, row, way in turns(settings.runs, QUICK if settings.quick else (*ROWS, HUGE), WAYS):
            samples.append(await _sample(stand, row, way, number))
            _say(samples[-1])
        facts |= {"accel": stand.accel(), "guest_memory_mib": MEMORY >> 20, "tls": True}
    return Results("many", when, facts | {"runs": settings.runs, "link_rate": settings.rate}, tuple(samples))


async def _sample(stand: Stand, row: Row, way: str, number: int) -> Sample:
    stand.sweep()
    try:
        return Sample(row.name, way, number, await _measure(stand, row, way))
    except (EsdError, AssertionError, TimeoutError) as error:
        return Sample(row.name, way, number, None, f"{type(error).__name__}: {error}")
    finally:
        stand.sweep()


async def _measure(stand: Stand, row: Row, way: str) -> dict[str, float]:
    names = [f"many{number}" for number in range(row.count)]
    for name in names:
        drive = FrontDrive("vda", seed=7, size=row.size, data=16 * MIB, file=f"{name}.raw")
        await Guest(name, stand.a, [drive]).start(None)
    started = time.perf_counter()
    if way == BESIDE:
        told = await asyncio.gather(*(_migrate(name, stand.b) for name in names))
    else:
        told = [await _migrate(name, stand.b) for name in names]
    return {
        "total": (time.perf_counter() - started) * 1000,
        "downtime": max(one["downtime_ms"] for one in told),
        "cpu": sum(one["cpu"] for one in told) * 1000 / row.count,
        "memory": max(one["memory"] for one in told),
        "handler": max(_resident(process.pid) for process in stand.a.path_handlers()),
    }


async def _migrate(name: str, to: Machine) -> dict[str, Any]:
    """By a command of its own; what it tells, and what it has used."""
    with tempfile.NamedTemporaryFile() as used:
        words = ("migrate", name, to.name, "--policy", "on-demand", "--yes", "--json")
        pipe = asyncio.subprocess.PIPE
        argv = (sys.executable, "-c", COMMAND, used.name, *words)
        child = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe)
        out, err = await child.communicate()
        if child.returncode != 0:
            raise EsdError(f"{name} was not moved: {err.decode(errors='replace').strip()[-300:]}")
        return {**json.loads(out), **json.loads(Path(used.name).read_text())}


def _resident(pid: int) -> int:
    """Bytes of memory that a process has to itself, or shares."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) << 10


def _say(sample: Sample) -> None:
    print(f"  run {sample.run + 1}  {sample.row:32} {sample.way:20} {_told(sample)}", file=sys.stderr, flush=True)


def _told(sample: Sample) -> str:
    return sample.why if sample.figures is None else f"{sample.figures['total'] / 1000:.2f} s"


BENCH = Bench(
    "many",
    "several guests moved by as many commands, one after another and side by side",
    WAYS,
    (
        Measure("total", "until all have moved", Unit.SECONDS, drawn="Seconds until all guests have moved"),
        Measure("downtime", "longest downtime", Unit.MILLIS),
        Measure("cpu", "processor time of a command", Unit.MILLIS),
        Measure("memory", "memory of a command", Unit.BYTES),
        Measure("handler", "memory of a path handler", Unit.BYTES),
    ),
    run,
)
