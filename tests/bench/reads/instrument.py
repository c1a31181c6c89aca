"""The instrument: fio, which reads an NBD export in an order that is written down beforehand, and times each read."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qemu_esd.hosts.base import run
from qemu_esd.hosts.local import LocalHost
from tests.bench.reads.series import Read


@dataclass(frozen=True)
class Reading:
    """What a series of reads came to: how many, bytes, seconds, and the median time of one of them in ms."""

    count: int
    bytes: int
    seconds: float
    latency_ms: float


def iolog(reads: Sequence[Read]) -> str:
    """The reads as fio replays them, in this order."""
    lines = ["fio version 2 iolog", "disk add", "disk open"]
    lines += [f"disk read {read.offset} {read.length}" for read in reads]
    return "\n".join([*lines, "disk close", ""])


def reading(report: dict[str, Any], count: int) -> Reading:
    """What fio's JSON says of `count` reads. Raises AssertionError if not all of them came back."""
    job = report["jobs"][0]
    row = job["read"]
    assert (job["error"], row["total_ios"]) == (0, count), f"fio: error {job['error']}, {row['total_ios']} of {count}"
    latency_ms = row["lat_ns"]["percentile"]["50.000000"] / 1e6
    return Reading(count, row["io_bytes"], row["runtime"] / 1000, latency_ms)


def together(readings: Sequence[Reading]) -> Reading:
    """Several series as one. Its latency is the median of their medians."""
    return Reading(
        sum(one.count for one in readings),
        sum(one.bytes for one in readings),
        sum(one.seconds for one in readings),
        statistics.median(one.latency_ms for one in readings),
    )


async def read(socket: Path, export: str, reads: Sequence[Read], depth: int) -> Reading:
    """Read from an NBD export on a unix socket, with `depth` requests in flight."""
    with tempfile.NamedTemporaryFile("w", prefix="esd-bench-", suffix=".iolog") as log:
        log.write(iolog(reads))
        log.flush()
        where = ("--name=reads", "--ioengine=nbd", f"--uri=nbd+unix:///{export}?socket={socket}")
        what = (f"--read_iolog={log.name}", "--replay_no_stall=1", f"--iodepth={depth}", "--lat_percentiles=1")
        said = (await run(LocalHost(), ("fio", *where, *what, "--output-format=json"))).stdout.decode()
    # Before the report fio says that it is connected.
    return reading(json.loads(said[said.index("{") :]), len(reads))
