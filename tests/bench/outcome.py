"""What came out: one sample per way and run, and what several of them say together. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cattrs import Converter


@dataclass(frozen=True)
class Sample:
    """Row `row` in the way `way`. `figures`, by the names of measures: None if it did not come to an end; `why` tells.

    `unfinished`: it would have come to one, but took too long.
    """

    row: str
    way: str
    run: int
    figures: Mapping[str, float] | None
    why: str = ""
    unfinished: bool = False


@dataclass(frozen=True)
class Results:
    """A whole run of the benchmark; what is written as JSON. `facts` describe machine and settings."""

    bench: str
    when: str
    facts: dict[str, Any]
    samples: tuple[Sample, ...]

    def rows(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(sample.row for sample in self.samples))

    def of(self, row: str, way: str) -> tuple[Sample, ...]:
        return tuple(sample for sample in self.samples if (sample.row, sample.way) == (row, way))


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of `count` values."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Iterable[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return Spread(statistics.median(known), min(known), max(known), len(known)) if known else None


def measured(samples: Iterable[Sample], measure: str) -> Spread | None:
    """The spread of one measure over the samples that arrived."""
    return spread(sample.figures.get(measure) for sample in samples if sample.figures)


def ratio(over: Iterable[Sample], under: Iterable[Sample], measure: str) -> Spread | None:
    """`over` divided by `under`, run by run: what was measured side by side is compared."""
    below = {sample.run: sample.figures.get(measure) for sample in under if sample.figures}
    pairs = [(sample.figures.get(measure), below.get(sample.run)) for sample in over if sample.figures]
    return spread(one / other for one, other in pairs if one is not None and other)


_CONVERTER = Converter(forbid_extra_keys=True)


def to_plain(results: Results) -> dict[str, Any]:
    """As JSON has it."""
    return dict(_CONVERTER.unstructure(results))


def from_plain(document: dict[str, Any]) -> Results:
    return _CONVERTER.structure(document, Results)
