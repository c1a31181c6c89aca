"""The command line as a user meets it, on a controller that knows nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from qemu_esd.cli.app import main


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said where."""

    status: int
    out: str
    err: str


Say = Callable[..., Said]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither guests nor hosts of whoever runs the tests."""
    monkeypatch.setenv("QEMU_ESD_STATE", str(tmp_path / "controller"))
    monkeypatch.setenv("QEMU_ESD_LAB", str(tmp_path / "lab"))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run `qemu-esd WORDS...` in this process."""

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["qemu-esd", *words])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        return Said(status, *capsys.readouterr())

    return run
