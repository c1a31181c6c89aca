"""What `doctor` finds: one sentence on what, one on why it matters, one command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """`problem`: a migration would be refused, or something broken was left. `note`: it works, and could be better."""

    GOOD = "good"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """`host` is a host, or "A -> B" for the way between two. `why` and `hint` are empty where all is good."""

    host: str
    check: str
    level: Level
    what: str
    why: str = ""
    hint: str = ""
