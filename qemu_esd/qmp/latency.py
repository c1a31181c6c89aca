"""How long the guest's reads and writes take, as QEMU counts them for its devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from qemu_esd.model.pace import Latencies
from qemu_esd.qmp.blockdev import device_path
from qemu_esd.qmp.session import Session

# Upper ends in ns, each by a fifth above the one before: from 8 µs to about a minute. By them ours are known.
BOUNDS = tuple(round(8_000 * 1.2**number) for number in range(87))
_HISTOGRAMS = ("rd_latency_histogram", "wr_latency_histogram")


async def start(session: Session, devices: Collection[str]) -> tuple[str, ...]:
    """Let these devices (QOM paths) count from now on. Returns those that are to be stopped: not what others count."""
    rows = await _stats(session, devices)
    ours = tuple(
        path for path in devices if all(row["boundaries"] == list(BOUNDS) for row in _histograms(rows.get(path, {})))
    )
    for path in ours:
        await session.execute("block-latency-histogram-set", id=path, boundaries=list(BOUNDS))
    return ours


async def stop(session: Session, devices: Collection[str]) -> None:
    for path in devices:
        await session.execute("block-latency-histogram-set", id=path)


async def counted(session: Session, devices: Collection[str]) -> Latencies:
    """All reads and writes of these devices since they are counted."""
    found = Counter[float]()
    for stats in (await _stats(session, devices)).values():
        for histogram in _histograms(stats):
            for upper, count in zip((*histogram["boundaries"], float("inf")), histogram["bins"], strict=True):
                found[upper] += count
    return found


def _histograms(stats: dict[str, Any]) -> list[dict[str, Any]]:
    return [stats[name] for name in _HISTOGRAMS if name in stats]


async def _stats(session: Session, devices: Collection[str]) -> dict[str, dict[str, Any]]:
    rows = await session.execute("query-blockstats")
    told = {device_path(row["qdev"]): row["stats"] for row in rows if row.get("qdev")}
    return {path: stats for path, stats in told.items() if path in devices}
