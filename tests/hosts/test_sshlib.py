"""No command runs a compiler, nor leaves anything of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_no_compiler_runs(tmp_path: Path) -> None:
    told = tmp_path / "told"
    for name in ("gcc", "cc", "ld"):
        fake = tmp_path / name
        fake.write_text(f'#!/bin/sh\necho "$0 $*" >>{told}\nexit 1\n')
        fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = "import os, qemu_esd.hosts.ssh; print(os.environ['PATH'])"
    done = subprocess.run((sys.executable, "-c", script), env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == environment["PATH"]
    assert not told.exists(), told.read_text()
