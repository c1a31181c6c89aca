"""What a benchmark is: its ways, what is measured of each, and how they take turns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from qemu_esd.units import human_bytes
from tests.bench.outcome import Results


class Unit(StrEnum):
    """What a value counts. Times are ms, SECONDS says only that they are told in seconds."""

    SECONDS = "seconds"
    MILLIS = "milliseconds"
    BYTES = "bytes"
    RATE = "bytes per second"
    PER_SECOND = "per second"
    TIMES = "times"
    COUNT = "count"


@dataclass(frozen=True)
class Measure:
    """`drawn`: the title of its picture, None if it has none."""

    name: str
    heading: str
    unit: Unit
    drawn: str | None = None
    logarithmic: bool = False

    def written(self, value: float) -> str:
        return _WRITTEN[self.unit](value)

    def scaled(self, value: float) -> float:
        """For an axis, whose title names the unit."""
        return value / _SCALES.get(self.unit, 1)


_SCALES = {Unit.SECONDS: 1000, Unit.BYTES: 1 << 20, Unit.RATE: 1 << 20}
_WRITTEN: dict[Unit, Callable[[float], str]] = {
    Unit.SECONDS: lambda value: f"{value / 1000:.2f} s",
    Unit.MILLIS: lambda value: f"{value:.0f} ms" if value >= 10 else f"{value:.2f} ms",
    Unit.BYTES: human_bytes,
    Unit.RATE: lambda value: f"{human_bytes(value)}/s",
    Unit.PER_SECOND: lambda value: f"{value:.0f}/s",
    Unit.TIMES: lambda value: f"x {value:.2f}",
    Unit.COUNT: lambda value: f"{value:.0f}",
}


@dataclass(frozen=True)
class Settings:
    """`runs`: how often everything is measured; `quick`: small, only to see that it works; `bound`: seconds for one
    migration; `rate`: the link's limit in bytes/s; `disks`: other rows than its own, as SIZE[:DATA]."""

    runs: int
    quick: bool = False
    bound: float = 120.0
    rate: int | None = None
    disks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bench:
    """`what`: one sentence, what is measured against what. The first of `ways` is what the others are held against."""

    name: str
    what: str
    ways: tuple[str, ...]
    measures: tuple[Measure, ...]
    run: Callable[[Settings], Awaitable[Results]]

    @property
    def base(self) -> str:
        return self.ways[0]


R = TypeVar("R")


def turns(runs: int, rows: Sequence[R], ways: Sequence[str]) -> Iterator[tuple[int, R, str]]:
    """Each row in all ways, right after each other; who comes first changes from run to run."""
    for number in range(runs):
        for row in rows:
            yield from ((number, row, way) for way in (ways if number % 2 == 0 else reversed(ways)))
