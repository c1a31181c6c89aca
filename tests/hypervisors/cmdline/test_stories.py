"""Command lines from real life, and what becomes of each: fixtures/cmdline/NN-name.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hypervisors.cmdline.stories import run

STORIES = sorted((Path(__file__).parents[3] / "fixtures" / "cmdline").glob("*.json"))


@pytest.mark.parametrize("path", STORIES, ids=[path.stem for path in STORIES])
def test_story(path: Path) -> None:
    story = json.loads(path.read_text())
    assert run(story) == story["expected"], story["why"]


def test_the_stories_are_numbered() -> None:
    assert [path.name.partition("-")[0] for path in STORIES] == [f"{n:02d}" for n in range(1, len(STORIES) + 1)]
