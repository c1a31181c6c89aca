"""What came of each fault, a line each: the table in docs/faults.md is made of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pytest

REPORT = "ESD_FAULTS_REPORT"
# What only `tasks.py faults` tries: the ordinary tests take a sample.
thorough = pytest.mark.skipif(os.environ.get("ESD_FAULTS") != "all", reason="tried by tasks.py faults")


@dataclass(frozen=True)
class Line:
    """`command`: how the command ended that met the fault; `recovered`: what was then done, with exit statuses."""

    fault: str
    phase: str
    command: str
    recovered: str
    runs_on: str


def note(line: Line) -> None:
    """Add a line to the report, if one is wanted."""
    print(line)
    if path := os.environ.get(REPORT):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps([_place(), asdict(line)]) + "\n")


def collected(tests: Iterable[str]) -> None:
    """The order in which the lines are told: that of the tests, whichever ended first."""
    _places.update({test: place for place, test in enumerate(tests)})


_places: dict[str, int] = {}


def _place() -> int:
    return _places[os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]]


def read(path: Path) -> list[Line]:
    rows = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    return [Line(**line) for _, line in sorted(rows, key=lambda row: int(row[0]))]


def markdown(lines: Iterable[Line]) -> str:
    """A table of all lines, in their order."""
    names = [field.name for field in fields(Line)]
    rows = [[f"{number}", *(getattr(line, name) for name in names)] for number, line in enumerate(lines, 1)]
    head = ["", "fault", "phase", "its command", "then", "runs on"]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))
