"""The pace of a background move: the limit that holds now, and what adapts it to the guest.

QEMU's job has the limit in itself, and goes on with the last one if we are killed. What we ask for ourselves waits
here.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

from qemu_esd.errors import EsdError
from qemu_esd.graph import names
from qemu_esd.log import logger
from qemu_esd.model.pace import AUTO, FLOOR, Bandwidth, Latencies, Pace, after
from qemu_esd.model.record import DiskRecord
from qemu_esd.phases.station import Station
from qemu_esd.qmp import jobs, latency

WINDOW_SECONDS = 1.0
# A window with fewer reads and writes than this goes on, for so many seconds at most: 99 of 100 would mean nothing.
ENOUGH = 100
LONGEST_SECONDS = 5.0
# What was in flight under the limit before is let pass before a window begins.
AFTERMATH_SECONDS = 0.2


class Throttle:
    """The limit of a move: `speed` bytes/s, 0: none; it can be changed meanwhile.

    `halved`: QEMU's job and we go on side by side, and each has half of it. `passed` is how many bytes we were let.
    """

    def __init__(self, speed: int) -> None:
        self.speed = speed
        self.halved = False
        self.passed = 0
        self._free = 0.0

    @property
    def each(self) -> int:
        """What QEMU's job may have, or we."""
        return -(-self.speed // 2) if self.halved else self.speed

    async def admit(self, length: int) -> None:
        """Returns when `length` bytes more may be asked for: spread over time, and not in bursts."""
        begin = max(self._free, time.monotonic())
        self._free = begin + (length / self.each if self.speed else 0)
        await asyncio.sleep(begin - time.monotonic())
        self.passed += length


def first_limit(bandwidth: Bandwidth) -> int:
    """Bytes/s that a move begins with; 0: no limit."""
    return FLOOR if bandwidth == AUTO else bandwidth or 0


async def adapt(station: Station, disk: DiskRecord, throttle: Throttle) -> NoReturn:
    """Change the limit of the move of `disk`, job and `throttle`, as the guest bears it, until cancelled."""
    devices = tuple(station.disk(row).qdev for row in station.linked())
    pace = Pace()
    async with _counting(station, devices):
        try:
            while True:
                await _set(station, disk, throttle, pace.limit)
                window = await _look(station, disk, throttle, devices)
                pace = after(pace, window.seen, window.rate)
                logger.debug("pace", disk=disk.id, limit=pace.limit, rate=window.rate)
        finally:
            # Nobody changes it any more. A kill in a calm window leaves the job at FLOOR instead.
            with suppress(EsdError):
                await _set(station, disk, throttle, pace.speed)


@asynccontextmanager
async def _counting(station: Station, devices: tuple[str, ...]) -> AsyncIterator[None]:
    """A kill here leaves QEMU counting, which costs nothing, and which the next one ends."""
    ours = await latency.start(station.qemu, devices)
    try:
        yield
    finally:
        with suppress(EsdError):
            await latency.stop(station.qemu, ours)


@asynccontextmanager
async def halved(station: Station, disk: DiskRecord, throttle: Throttle, wanted: bool) -> AsyncIterator[None]:
    """While this is open, half of the limit is ours, if it is `wanted`. A kill here leaves the job at half of it."""
    if not wanted or not throttle.speed:
        yield
        return
    throttle.halved = True
    try:
        await _tell(station, disk, throttle)
        yield
    finally:
        throttle.halved = False
        with suppress(EsdError):
            await _tell(station, disk, throttle)


async def _set(station: Station, disk: DiskRecord, throttle: Throttle, speed: int) -> None:
    throttle.speed = speed
    await _tell(station, disk, throttle)


async def _tell(station: Station, disk: DiskRecord, throttle: Throttle) -> None:
    await jobs.set_speed(station.qemu, names.move_job(disk.suid), throttle.each)


@dataclass(frozen=True)
class _Window:
    seen: Latencies
    rate: int


async def _look(station: Station, disk: DiskRecord, throttle: Throttle, devices: tuple[str, ...]) -> _Window:
    await asyncio.sleep(AFTERMATH_SECONDS)
    begun, before, moved = time.monotonic(), await _counted(station, devices), await _moved(station, disk, throttle)
    while True:
        await asyncio.sleep(WINDOW_SECONDS)
        seconds, seen = time.monotonic() - begun, await _counted(station, devices) - before
        if not 0 < seen.total() < ENOUGH or seconds > LONGEST_SECONDS:
            done = await _moved(station, disk, throttle)
            return _Window(seen, max(int((done - moved) / seconds), 0))


async def _counted(station: Station, devices: tuple[str, ...]) -> Counter[float]:
    return Counter(await latency.counted(station.qemu, devices))


async def _moved(station: Station, disk: DiskRecord, throttle: Throttle) -> int:
    """Bytes, by the job or by us."""
    job = (await jobs.running(station.qemu)).get(names.move_job(disk.suid))
    return throttle.passed + (job.done if job else 0)
