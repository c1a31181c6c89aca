"""How fast a node is read: at random one by one, at random with many in flight, and in a row."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from tests.bench.bench import Measure, Settings, Unit
from tests.bench.reads.instrument import Reading, together
from tests.bench.reads.series import KIB, MIB, Series, dealt, room
from tests.bench.reads.stage import Stage

ALONE = Series("alone", 4 * KIB, 1, 500, grain=64 * KIB)
MANY = Series("many", 4 * KIB, 16, 1000, grain=64 * KIB)
IN_A_ROW = Series("row", MIB, 4, 96)
SERIES = (ALONE, MANY, IN_A_ROW)
ROUNDS, QUICK_ROUNDS = 4, 1

MEASURES = (
    Measure("latency", "4 KiB random, one at a time: median", Unit.MILLIS, drawn="Milliseconds of one 4 KiB read"),
    Measure("alone", "4 KiB random, one at a time", Unit.PER_SECOND),
    Measure("many", "4 KiB random, 16 in flight", Unit.PER_SECOND, drawn="4 KiB reads per second, 16 in flight"),
    Measure("row", "1 MiB in a row, 4 in flight", Unit.RATE, drawn="MiB per second, in a row"),
)

Seen = tuple[Series, Reading]


def rounds(settings: Settings) -> int:
    return QUICK_ROUNDS if settings.quick else ROUNDS


def size(settings: Settings) -> int:
    """Bytes of a disk of which nothing is read twice."""
    return room(SERIES, rounds(settings))


async def compare(stage: Stage, nodes: Sequence[str], settings: Settings) -> list[dict[str, float]]:
    """The figures of each node: the same reads of all in turns, and who is first changes."""
    seen: dict[str, list[Seen]] = {node: [] for node in nodes}
    await stage.show(*nodes)
    for number, series, reads in dealt(SERIES, rounds(settings)):
        for node in nodes if number % 2 == 0 else reversed(nodes):
            seen[node].append((series, await stage.read(node, reads, series.depth)))
    await stage.hide(*nodes)
    return [figures(by_series(seen[node])) for node in nodes]


def by_series(seen: Iterable[Seen]) -> dict[str, Reading]:
    """What the rounds of each series come to together."""
    by_name = sorted(seen, key=lambda one: one[0].name)
    groups = itertools.groupby(by_name, key=lambda one: one[0].name)
    return {name: together([reading for _, reading in group]) for name, group in groups}


def figures(readings: Mapping[str, Reading]) -> dict[str, float]:
    """By the names of the measures."""
    alone, many, row = readings[ALONE.name], readings[MANY.name], readings[IN_A_ROW.name]
    return {
        "latency": alone.latency_ms,
        "alone": alone.count / alone.seconds,
        "many": many.count / many.seconds,
        "row": row.bytes / row.seconds,
    }
