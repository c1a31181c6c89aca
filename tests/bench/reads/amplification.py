"""The benchmark `amplification`: what a read of a guest costs beyond itself, by the clusters of the overlay.

on-demand, on data that is absent until then: bytes over the link (both ways, all layers) and bytes that the overlay
grows by, each per byte read. Random reads are each in a cluster of its own, which is the worst that can be.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from unittest import mock

from qemu_esd.graph.handlers import on_demand
from qemu_esd.model.policy import Handler
from tests.bench.bench import Bench, Measure, Settings, Unit, turns
from tests.bench.outcome import Results
from tests.bench.reads import running, stage
from tests.bench.reads.instrument import Reading
from tests.bench.reads.series import KIB, MIB, Read, Series, dealt, room
from tests.bench.reads.stage import Stage
from tests.bench.stand import Stand

NAME = "amplification"
# Clusters in KiB; the first are those that a migration makes.
WAYS = {f"{kib} KiB": f"{kib}k" for kib in (16, 64, 128, 256)}
SERIES = (
    Series("4 KiB, at random", 4 * KIB, 1, 800, grain=256 * KIB),
    Series("4 KiB, in a row", 4 * KIB, 1, 4000),
    Series("1 MiB, in a row", MIB, 4, 128),
)


async def run(settings: Settings) -> Results:
    tasks = (
        running.Task(number, tuple((series.name, way) for series in SERIES), partial(_measure, way))
        for number, _, way in turns(settings.runs, (None,), tuple(WAYS))
    )
    return await running.measure(NAME, settings, tasks, handler=Handler.ON_DEMAND.value, disk=room(SERIES, 1))


async def _measure(way: str, stand: Stand) -> running.Measured:
    with _clusters_of(WAYS[way]):
        guest = await stage.move(stand, Handler.ON_DEMAND, room(SERIES, 1))
    async with stage.opened(stand, guest) as here:
        await here.show(here.top)
        return {(series.name, way): await _cost(here, series, reads) for _, series, reads in dealt(SERIES, 1)}


def _clusters_of(size: str) -> AbstractContextManager[object]:
    """Overlays made meanwhile have other clusters; a user cannot choose them."""
    return mock.patch.object(on_demand, "overlay_options", lambda _: {"cluster_size": size})


async def _cost(here: Stage, series: Series, reads: list[Read]) -> dict[str, float]:
    sent, stored = here.stand.link_bytes(), here.stored()
    seen = await here.read(here.top, reads, series.depth)
    return figures(seen, here.stand.link_bytes() - sent, here.stored() - stored)


def figures(seen: Reading, sent: int, stored: int) -> dict[str, float]:
    """By the names of the measures."""
    return {
        "link": sent / seen.bytes,
        "stored": stored / seen.bytes,
        "latency": seen.latency_ms,
        "rate": seen.bytes / seen.seconds,
    }


BENCH = Bench(
    NAME,
    "bytes over the link and bytes stored for each byte that the guest reads, on-demand, by cluster size",
    tuple(WAYS),
    (
        Measure("link", "over the link, per byte read", Unit.TIMES, drawn="Bytes over the link, per byte read"),
        Measure("stored", "stored, per byte read", Unit.TIMES),
        Measure("latency", "one read: median", Unit.MILLIS, drawn="Milliseconds of one read"),
        Measure("rate", "rate", Unit.RATE),
    ),
    run,
)
