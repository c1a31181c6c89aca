"""How long the guest's reads and writes take, as QEMU counts them for its devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from qemu_esd.model.pace import Latencies
from qemu_esd.qmp.blockdev import device_path
from qemu_esd.qmp.session import Session

# Upper ends in ns, each by a fifth above the one before: from 10 µs to about a minute.
BOUNDS = tuple(round(10_000 * 1.2**number) for number in range(86))
_HISTOGRAMS = ("rd_latency_histogram", "wr_latency_histogram")


async def start(session: Session, devices: Collection[str]) -> tuple[str, ...]:
    """Let these devices (QOM paths) count from now on. Returns those that did not before: they are to be stopped."""
    rows = await _stats(session, devices)
    new = tuple(path for path in devices if not any(name in rows.get(path, {}) for name in _HISTOGRAMS))
    for path in new:
        await session.execute("block-latency-histogram-set", id=path, boundaries=list(BOUNDS))
    return new


async def stop(session: Session, devices: Collection[str]) -> None:
    for path in devices:
        await session.execute("block-latency-histogram-set", id=path)


async def counted(session: Session, devices: Collection[str]) -> Latencies:
    """All reads and writes of these devices since they are counted."""
    found = Counter[float]()
    for stats in (await _stats(session, devices)).values():
        for histogram in (stats[name] for name in _HISTOGRAMS if name in stats):
            for upper, count in zip((*histogram["boundaries"], float("inf")), histogram["bins"], strict=True):
                found[upper] += count
    return found


async def _stats(session: Session, devices: Collection[str]) -> dict[str, dict[str, Any]]:
    rows = await session.execute("query-blockstats")
    told = {device_path(row["qdev"]): row["stats"] for row in rows if row.get("qdev")}
    return {path: stats for path, stats in told.items() if path in devices}
