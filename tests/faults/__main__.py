"""python -m tests.faults [--keep] [--jobs N] [PYTEST ARGUMENTS]: every fault in every phase, and what came of each.

N of them side by side (default 3): most of the time of a fault is waiting. With --keep the table goes into
docs/faults.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults import report

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/faults.md"
HEAD = """# Faults tried

Made by `python3 tasks.py faults --keep`: {count} faults, each on real QEMUs (Debian 12's) under a verifying load.
In each row: never were there two running copies; in the end the guest ran on the host in the last column; what it had
flushed was there; its load saw nothing wrong as long as its QEMU lived; after `settle`, `release` and `vm stop` nothing
was left over. "Then" is what `status` said to do, with the exit status.

"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--jobs", type=int, default=3)
    words, more = parser.parse_known_args()
    status, lines = _try_all(words.jobs, more)
    print(report.markdown(lines))
    print(f"{len(lines)} faults tried and survived")
    if words.keep and status == 0 and lines:
        PAGE.write_text(HEAD.format(count=len(lines)) + report.markdown(lines), encoding="utf-8")
    return status if lines else 1


def _try_all(jobs: int, more: list[str]) -> tuple[int, list[report.Line]]:
    """pytest's exit status, and what its tests have noted."""
    with tempfile.TemporaryDirectory(prefix="esd-faults-") as folder:
        told = Path(folder) / "report"
        told.touch()
        environment = {**os.environ, "ESD_FAULTS": "all", report.REPORT: str(told)}
        argv = (sys.executable, "-m", "tests.whole", f"--numprocesses={jobs}", "tests/faults", *more)
        with subprocess.Popen(argv, cwd=ROOT, env=environment) as child:
            # It has got a Ctrl-C too, and takes down in its own time what it has put up.
            signal.signal(signal.SIGINT, lambda *_: None)
            signal.signal(signal.SIGTERM, lambda *_: child.terminate())
            status = child.wait()
        return status, report.read(told)


if __name__ == "__main__":
    sys.exit(main())
