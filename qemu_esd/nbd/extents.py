"""Ranges of a disk, and the pure questions about a map of them. All offsets and lengths are bytes.

Flags of `qemu:allocation-depth`: 0 unallocated, 1 allocated in the top image (local), 2 and more in a
backing image. Flags of `base:allocation`: bit 0 hole, bit 1 reads as zeroes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

BASE_ALLOCATION = "base:allocation"
ALLOCATION_DEPTH = "qemu:allocation-depth"

STATE_HOLE = 1
STATE_ZERO = 2
LOCAL_DEPTH = 1


@dataclass(frozen=True, slots=True)
class Range:
    """`length` bytes from `offset` on."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of which one metadata context says the same everywhere: `flags`."""

    offset: int
    length: int
    flags: int

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Status:
    """A range with its allocation depth and its `base:allocation` flags."""

    offset: int
    length: int
    depth: int
    base: int


class Where(StrEnum):
    """Where the data of a range is: here, in a backing image, or nowhere because it reads as zeroes."""

    LOCAL = "local"
    REMOTE = "remote"
    HOLE = "hole"


@dataclass(frozen=True, slots=True)
class Residence:
    """A range whose data is all in one place."""

    offset: int
    length: int
    state: Where


@dataclass(frozen=True, slots=True)
class Residency:
    """Where the bytes of a disk are: neighbouring `ranges` differ in state, the totals are their sums."""

    ranges: tuple[Residence, ...]
    local_bytes: int
    remote_bytes: int
    hole_bytes: int

    def where(self, state: Where) -> list[Range]:
        """The ranges in this state."""
        return [Range(part.offset, part.length) for part in self.ranges if part.state is state]

    def missing(self) -> list[Range]:
        """What is not local, whatever it is; neighbours are one range."""
        parts = (Extent(part.offset, part.length, 0) for part in self.ranges if part.state is not Where.LOCAL)
        return [Range(part.offset, part.length) for part in merge(parts)]


def merge(extents: Iterable[Extent]) -> list[Extent]:
    """Join neighbours of equal flags. `extents` must be in order; a gap keeps neighbours apart."""
    merged: list[Extent] = []
    for extent in extents:
        last = merged[-1] if merged else None
        if last and last.end == extent.offset and last.flags == extent.flags:
            merged[-1] = Extent(last.offset, last.length + extent.length, last.flags)
        else:
            merged.append(extent)
    return merged


def clip(extents: Iterable[Extent], end: int) -> list[Extent]:
    """The extents without anything from `end` on."""
    return [
        extent if extent.end <= end else Extent(extent.offset, end - extent.offset, extent.flags)
        for extent in extents
        if extent.offset < end
    ]


def combine(depth: Sequence[Extent], base: Sequence[Extent]) -> list[Status]:
    """Both contexts of the same range as one list. ValueError if the two do not cover the same bytes."""
    if _covered(depth) != _covered(base):
        raise ValueError(f"maps of different ranges: {_covered(depth)} and {_covered(base)}")
    return list(_zipped(depth, base))


def absent(depth: Iterable[Extent]) -> list[Range]:
    """Every range that is not allocated in the top image, holes too: what is still to be filled."""
    missing = (Extent(e.offset, e.length, 0) for e in depth if e.flags != LOCAL_DEPTH)
    return [Range(extent.offset, extent.length) for extent in merge(missing)]


def common(one: Iterable[Range], other: Iterable[Range]) -> list[Range]:
    """What is in both of two lists, each in order and without overlaps."""
    found, rest = list[Range](), list(other)[::-1]
    for mine in one:
        while rest and rest[-1].offset < mine.end:
            start, end = max(mine.offset, rest[-1].offset), min(mine.end, rest[-1].end)
            if start < end:
                found.append(Range(start, end - start))
            if rest[-1].end > mine.end:
                break
            rest.pop()
    return found


def residency(depth: Sequence[Extent], base: Sequence[Extent]) -> Residency:
    """Where every byte is, from both contexts of the same range (ValueError if they are not)."""
    ranges: list[Residence] = []
    total = dict.fromkeys(Where, 0)
    for status in combine(depth, base):
        state = _where(status)
        total[state] += status.length
        if ranges and ranges[-1].state is state:
            ranges[-1] = Residence(ranges[-1].offset, ranges[-1].length + status.length, state)
        else:
            ranges.append(Residence(status.offset, status.length, state))
    return Residency(tuple(ranges), total[Where.LOCAL], total[Where.REMOTE], total[Where.HOLE])


def _where(status: Status) -> Where:
    """Depth 0 that is not known to read as zeroes counts as remote: the careful answer."""
    if status.depth == LOCAL_DEPTH:
        return Where.LOCAL
    return Where.HOLE if status.base & STATE_ZERO else Where.REMOTE


def _covered(extents: Sequence[Extent]) -> tuple[int, int] | None:
    """First byte and end of a gapless list, None of an empty one."""
    for before, after in pairwise(extents):
        if before.end != after.offset:
            raise ValueError(f"a gap in the map from {before.end} to {after.offset}")
    return (extents[0].offset, extents[-1].end) if extents else None


def _zipped(depth: Sequence[Extent], base: Sequence[Extent]) -> Iterator[Status]:
    """Two gapless lists of the same range, cut at every border of either."""
    bases = iter(base)
    other = next(bases, None)
    for extent in depth:
        offset = extent.offset
        while other and offset < extent.end:
            end = min(extent.end, other.end)
            yield Status(offset, end - offset, extent.flags, other.flags)
            offset = end
            if other.end == end:
                other = next(bases, None)
