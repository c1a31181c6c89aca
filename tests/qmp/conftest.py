from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.qemu import short_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """For sockets: a short path."""
    with short_folder() as short:
        yield short
