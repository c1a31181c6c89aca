"""Which bytes are read, in which order. Pure: the same numbers give the same reads."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 4 * KIB


@dataclass(frozen=True)
class Read:
    """Bytes `offset` to `offset` + `length`."""

    offset: int
    length: int


@dataclass(frozen=True)
class Series:
    """`count` reads of `block` bytes with `depth` in flight: in a row or, with a `grain`, at random, each in a grain.

    A grain is as large as a cluster of the overlay or larger, so that no read finds what another one has brought.
    """

    name: str
    block: int
    depth: int
    count: int
    grain: int | None = None

    @property
    def room(self) -> int:
        """Bytes of the disk that it takes, in whole MiB."""
        return -(-self.count * (self.grain or self.block) // MIB) * MIB

    def reads(self, start: int, dice: random.Random) -> list[Read]:
        """On the disk from `start` on."""
        if self.grain is None:
            return [Read(start + number * self.block, self.block) for number in range(self.count)]
        blocks = self.grain // BLOCK
        grains = dice.sample(range(self.count), self.count)
        return [Read(start + grain * self.grain + dice.randrange(blocks) * BLOCK, self.block) for grain in grains]


def dealt(series: Sequence[Series], rounds: int) -> Iterator[tuple[int, Series, list[Read]]]:
    """(round, series, its reads), one after the other over the disk: whatever is read is new."""
    dice, place = random.Random(1), 0
    for number in range(rounds):
        for one in series:
            yield number, one, one.reads(place, dice)
            place += one.room


def room(series: Sequence[Series], rounds: int) -> int:
    """Bytes of the disk on which they are dealt."""
    return rounds * sum(one.room for one in series)
