from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.qemu import short_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """For images and sockets; with what a careless option parser would trip over in its path."""
    with short_folder() as short:
        path = short / "a, b"
        path.mkdir()
        yield path
