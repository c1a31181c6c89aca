"""The JSON schemas that what commands print is held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import validate

FOLDER = Path(__file__).resolve().parents[2] / "docs/schema"


def schema(name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return told


def holds(name: str, value: object) -> None:
    """Raises ValidationError if it does not."""
    validate(value, schema(name))
