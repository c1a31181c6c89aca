"""python -m tests.faults [--keep] [--jobs N] [PYTEST ARGUMENTS]: every fault in every phase, and what came of each.

Each file of tests is a run of its own, N of them side by side (default 2): most of the time of a fault is waiting.
With --keep the table goes into docs/faults.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults import report

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/faults.md"
NO_TESTS = 5  # pytest's status for a file of which nothing was chosen
HEAD = """# Faults tried

Made by `python3 tasks.py faults --keep`: {count} faults, each on real QEMUs (Debian 12's) under a verifying load.
In each row: never were there two running copies; in the end the guest ran on the host in the last column; what it had
flushed was there; its load saw nothing wrong as long as its QEMU lived; after `settle`, `release` and `vm stop` nothing
was left over. "Then" is what `status` said to do, with the exit status.

"""


@dataclass(frozen=True)
class Part:
    """One file of tests: how it ended, what it noted."""

    status: int
    lines: tuple[report.Line, ...]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    words, more = parser.parse_known_args()
    parts = asyncio.run(_run(words.jobs, more))
    lines = [line for part in parts for line in part.lines]
    print(report.markdown(lines))
    print(f"{len(lines)} faults tried and survived")
    failed = any(part.status not in (0, NO_TESTS) for part in parts) or not lines
    if words.keep and not failed:
        PAGE.write_text(HEAD.format(count=len(lines)) + report.markdown(lines), encoding="utf-8")
    return 1 if failed else 0


async def _run(jobs: int, more: list[str]) -> list[Part]:
    """All files, in order, whichever ended first."""
    turn = asyncio.Semaphore(jobs)
    files = sorted((ROOT / "tests/faults").glob("test_*.py"))
    with tempfile.TemporaryDirectory(prefix="esd-faults-") as folder:
        return await asyncio.gather(*(_try(file, Path(folder), turn, more) for file in files))


async def _try(file: Path, folder: Path, turn: asyncio.Semaphore, more: list[str]) -> Part:
    told = folder / f"{file.stem}.report"
    told.touch()
    environment = {**os.environ, "ESD_FAULTS": "all", report.REPORT: str(told)}
    argv = (sys.executable, "-m", "tests.whole", str(file.relative_to(ROOT)), *more)
    async with turn:
        started = time.monotonic()
        pipe = subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            *argv, cwd=ROOT, env=environment, stdout=pipe, stderr=subprocess.STDOUT
        )
        output, _ = await child.communicate()
    assert child.returncode is not None
    print(f"== {file.name}: exit {child.returncode}, {time.monotonic() - started:.0f} s\n{output.decode()}", flush=True)
    return Part(child.returncode, report.read(told))


if __name__ == "__main__":
    sys.exit(main())
