"""The benchmark `start-up`: how long a command takes that has nothing to do but to tell.

Against Python itself, which nobody beats, and against one program over ssh, which whoever asks a host needs.

wall     until the command has ended
cpu      of a processor, for the command and what it has started
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from qemu_esd.errors import EsdError
from qemu_esd.hosts.lab import state
from tests.bench import known
from tests.bench.bench import Bench, Measure, Settings, Unit, turns
from tests.bench.outcome import Results, Sample
from tests.bench.stand import Stand, machine_facts, open_stand

PYTHON, SSH, OURS = "python -c pass", "ssh HOST true", "qemu-esd"
# Each takes a fraction of a second.
TIMES = 8
GUESTS = 100


@dataclass(frozen=True)
class Row:
    """The words of a command, and how many guests are known."""

    words: tuple[str, ...]
    guests: int

    @property
    def name(self) -> str:
        return f"{' '.join(self.words)}, {self.guests or 'no'} guests known"


ROWS = (Row(("--help",), 0), Row(("status",), 0), Row(("status",), GUESTS))


async def run(settings: Settings) -> Results:
    """Measure everything; the rows one after another, because guests become known in between."""
    when, facts = datetime.now(UTC).isoformat(timespec="seconds"), machine_facts()
    samples: list[Sample] = []
    async with open_stand(settings.rate) as stand:
        for row in ROWS:
            if row.guests:
                await known.make(stand, row.guests)
            samples += _measure(stand, row, settings.runs * (1 if settings.quick else TIMES))
    return Results("start-up", when, facts | {"runs": settings.runs, "link_rate": settings.rate}, tuple(samples))


def _measure(stand: Stand, row: Row, runs: int) -> list[Sample]:
    commands = {
        PYTHON: (sys.executable, "-c", "pass"),
        SSH: _ssh(stand),
        OURS: (sys.executable, "-m", "qemu_esd", *row.words),
    }
    for argv in commands.values():
        # What was never loaded comes from the disk, and is compiled.
        _end_of(argv)
    samples = [Sample(row.name, way, run, _end_of(commands[way])) for run, _, way in turns(runs, (row,), WAYS)]
    print(f"  {row.name}: {runs} times each", file=sys.stderr, flush=True)
    return samples


def _ssh(stand: Stand) -> tuple[str, ...]:
    """One program on a host, by a new connection, as the lab has it: from the namespace of its switch."""
    host, lab = stand.a.lab, state.load(stand.a.lab.root)
    assert lab is not None
    assert lab.switch is not None
    target = host.ssh_target()
    options = (f"-oUserKnownHostsFile={target.known_hosts}", f"-oIdentityFile={target.key_file}", "-oBatchMode=yes")
    enter = ("nsenter", f"--net=/proc/{lab.switch.pid}/ns/net", "--")
    return (*enter, "ssh", "-F", "none", *options, "-l", target.user, "-p", str(target.port), target.address, "true")


def _end_of(argv: tuple[str, ...]) -> Mapping[str, float]:
    """Run a command to its end. Raises EsdError if it fails."""
    started = time.perf_counter()
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert child.stdout is not None
    with child.stdout:
        said = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    ended = time.perf_counter()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise EsdError(f"{argv} has failed: {said.decode(errors='replace')[-500:]}")
    cpu = used.ru_utime + used.ru_stime
    return {"wall": (ended - started) * 1000, "cpu": cpu * 1000}


WAYS = (PYTHON, SSH, OURS)
BENCH = Bench(
    "start-up",
    "how long a command takes that only tells; against Python itself, and one program over ssh",
    WAYS,
    (
        Measure("wall", "until it has ended", Unit.MILLIS, drawn="Milliseconds until a command has ended"),
        Measure("cpu", "of a processor", Unit.MILLIS),
    ),
    run,
)
