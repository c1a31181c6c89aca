"""--trace: a file that is made first, and written however the command ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_esd.trace import trace
from tests.cli.conftest import Say


@pytest.fixture(autouse=True)
def _none_again() -> Iterator[None]:
    yield
    trace.stop()
    trace.spans.clear()


def test_a_file_that_cannot_be_made_is_told_before_anything_is_done(say: Say, tmp_path: Path) -> None:
    told = say("--trace", str(tmp_path / "no" / "t.json"), "vm", "forget", "nobody")
    assert (told.status, told.out) == (2, "")
    assert "no trace can be written" in told.err


def test_a_command_that_fails_leaves_its_trace(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    told = say("--trace", str(file), "migrate", "nobody", "local", "--policy", "miss")
    assert told.status == 3
    assert "propose" in {event["name"] for event in json.loads(file.read_text())["traceEvents"]}
