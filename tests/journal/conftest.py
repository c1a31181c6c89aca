from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A controller's folder of this test alone."""
    path = tmp_path / "state"
    monkeypatch.setenv("QEMU_ESD_STATE", str(path))
    return path
