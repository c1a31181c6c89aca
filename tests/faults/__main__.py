"""python -m tests.faults [--keep] [PYTEST ARGUMENTS]: every fault in every phase, and a table of what came of each.

With --keep the table goes into docs/faults.md.
"""

from __future__ import annotations

import os
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


def main(words: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="esd-faults-") as folder:
        told = Path(folder, "report")
        told.touch()
        environment = {**os.environ, "ESD_FAULTS": "all", report.REPORT: str(told)}
        argv = [sys.executable, "-m", "tests.whole", "tests/faults", *(word for word in words if word != "--keep")]
        status = subprocess.run(argv, cwd=ROOT, env=environment, check=False).returncode
        lines = report.read(told)
    print(report.markdown(lines))
    print(f"{len(lines)} faults tried and survived")
    if "--keep" in words and status == 0:
        PAGE.write_text(HEAD.format(count=len(lines)) + report.markdown(lines), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
