"""How far something is that takes long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Something that takes long: `done` of `total` bytes, of one disk or of the guest's "RAM".

    Of RAM also how fast the guest writes to it (`dirty_rate`, bytes/s), and for how long it would stand still now.
    """

    what: str
    done: int
    total: int
    dirty_rate: int | None = None
    downtime_ms: int | None = None
