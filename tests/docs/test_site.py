"""The site is built without a warning, links and anchors included, and is read without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT


def test_no_warning_and_no_network(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="python3 tasks.py docs installs it")
    # Not --quiet: it keeps warnings from being counted, too.
    argv = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path))
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    for page in tmp_path.rglob("*.html"):
        assert "googleapis" not in page.read_text()
        assert "unpkg" not in page.read_text()
