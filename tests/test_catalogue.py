"""What the docs say was tried was tried by a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/catalogue.md").read_text())))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_it_exists(file: str, test: str) -> None:
    assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_there_are_some() -> None:
    assert len(NAMED) > 20
