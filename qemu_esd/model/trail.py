"""What is remembered of a migration for `report` and `status`: how it went over time, what was said, where data was."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sample:
    """How far something is: `done` of `total` bytes, of one disk or of the guest's "RAM".

    Of RAM also how fast the guest writes to it (`dirty_rate`, bytes/s), and for how long it would stand still now.
    """

    what: str
    done: int
    total: int
    dirty_rate: int | None = None
    downtime_ms: int | None = None


@dataclass(frozen=True)
class Remark:
    """What was said to the user: `level` is "note", "warning" or "error"."""

    level: str
    text: str


@dataclass(frozen=True)
class Snapshot:
    """Where the data of a disk was at one moment, in bytes (None: nobody could tell).

    `moment` is "arrived" (the guest has just come to the target) or "end" (of a command). `cells` has a letter for each
    part of the disk, of `cell_bytes` each: l(ocal), m(ixed), r(emote), h(ole); "" where there is no map.
    """

    moment: str
    disk: str
    virtual_bytes: int
    local_bytes: int | None
    remote_bytes: int | None
    cells: str = ""
    cell_bytes: int = 0


@dataclass(frozen=True)
class Versions:
    """Of qemu-esd and of the QEMU on each host, as text."""

    controller: str
    qemu: dict[str, str] = field(default_factory=dict)


Mark = Sample | Remark | Snapshot | Versions


@dataclass(frozen=True)
class Marked:
    """`time` in seconds since 1970, by the controller's clock."""

    time: float
    mark: Mark
