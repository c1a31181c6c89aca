"""Labs for tests: each with a root of its own, and each leaving no trace."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_esd.hosts import lab
from tests.lab.tools import traces


@pytest.fixture(autouse=True, scope="session")
def _root_only() -> None:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root (namespaces and mounts)")


@pytest.fixture
def lab_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The root of a lab that is not there yet. A blank in its path, because users have them."""
    yield from _lab_at(tmp_path / "a lab", monkeypatch)


@pytest.fixture(scope="module")
def three_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[lab.LabHost, ...]]:
    """A lab with three hosts for the tests of a module, which leave it as they found it."""
    with pytest.MonkeyPatch.context() as patch:
        for _ in _lab_at(tmp_path_factory.mktemp("shared") / "lab", patch):
            yield asyncio.run(lab.up(3)).lab.hosts


def _lab_at(root: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    patch.setenv("QEMU_ESD_LAB", str(root))
    patch.delenv("QEMU_ESD_LAB_DATA", raising=False)
    yield root
    asyncio.run(lab.down())
    assert traces(root) == set()
