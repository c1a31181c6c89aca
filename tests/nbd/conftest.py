from __future__ import annotations

from pathlib import Path

import pytest

from tests.nbd.images import Images, make_images


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return make_images(tmp_path)
