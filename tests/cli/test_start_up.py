"""What a command loads before it says its first word: the libraries that take long only where they have work to do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LARGE = ("asyncio", "asyncssh", "cattrs", "qemu.qmp", "structlog")
SCRIPT = """
import json, sys
from qemu_esd.cli.app import main
try:
    main()
finally:
    print(json.dumps(list(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["status"], ["migrate", "--help"], ["vm", "--help"]])
def test_what_asks_nobody_loads_nothing_large(words: list[str]) -> None:
    done = subprocess.run((sys.executable, "-c", SCRIPT, *words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stderr)
    assert "typer" in loaded
    assert [name for name in LARGE if name in loaded] == []
