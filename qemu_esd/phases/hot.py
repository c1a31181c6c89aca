"""Hot first: what the guest is about to touch comes sooner than the mirror, which goes from the first byte to the last.

What is local beyond the mirror was touched by the guest since it came here, or asked for by us: copy-on-read keeps what
is read. Around it more is likely to be touched next. So the disk is looked at in regions: those where the guest has
been are brought over first, then their neighbours. The mirror passes over what it finds local.

Looking asks nobody but the overlay (the window `own`): beside the mirror a question to the source waits as long as a
read of the guest does, and a map has thousands.

It lives in this process and ends with it: the mirror does not need it. Nothing that goes wrong here is an error of the
move.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from qemu_esd import nbd
from qemu_esd.errors import EsdError
from qemu_esd.graph import names
from qemu_esd.log import logger
from qemu_esd.model.record import DiskRecord
from qemu_esd.nbd import ALLOCATION_DEPTH, BASE_ALLOCATION, Extent, NbdError, Range
from qemu_esd.nbd.extents import LOCAL_DEPTH, STATE_ZERO
from qemu_esd.nbd.spread import spread
from qemu_esd.phases import links, windows
from qemu_esd.phases.station import Station
from qemu_esd.qmp import jobs

REGION = 4 << 20
# So many regions at once, of each one chunk. Where the guest has been a chunk is in pieces, of which QEMU reads one
# after another: more regions are what keeps the link busy, and not larger chunks.
CHUNK, WIDTH = 256 << 10, 8
# The mirror counts what it has done, and is at work on more beyond that: there nobody can tell who made what local.
AHEAD = 16 << 20
# From one look to the next: at least so long, and so many times as long as a look takes.
LOOK_SECONDS, LOOK_SHARE = 1.0, 30


@dataclass(frozen=True)
class Heat:
    """What is known of a disk, by numbers of regions: local bytes at the last look, where the guest has been since it
    came here, and what we have asked for, whatever came of it."""

    local: Mapping[int, int] = field(default_factory=dict)
    touched: frozenset[int] = frozenset()
    asked: frozenset[int] = frozenset()


def by_region(depth: Iterable[Extent]) -> Counter[int]:
    """Local bytes per region; a region without any is left out."""
    local: Counter[int] = Counter()
    for extent in depth:
        start = extent.offset
        while extent.flags == LOCAL_DEPTH and start < extent.end:
            end = min(extent.end, start - start % REGION + REGION)
            local[start // REGION] += end - start
            start = end
    return local


def after(heat: Heat, local: Mapping[int, int], first: int) -> Heat:
    """The heat after a look. `first` is the first region that the mirror cannot have begun: below it all may be its."""
    touched = frozenset(number for number in local if number >= first and number not in heat.asked)
    return replace(heat, local=local, touched=heat.touched | touched)


def hottest(before: Heat, now: Heat, first: int) -> list[int]:
    """The regions to be brought next: where the guest has been, most growth first, then what is beside those."""

    def rank(number: int) -> tuple[bool, int, int, int]:
        local = now.local.get(number, 0)
        return number not in now.touched, before.local.get(number, 0) - local, -local, number

    near = {number + step for number in now.touched for step in (-1, 0, 1)}
    wanted = (number for number in near - now.asked if number >= first and now.local.get(number, 0) < REGION)
    return sorted(wanted, key=rank)


@asynccontextmanager
async def beside(station: Station, disk: DiskRecord) -> AsyncIterator[None]:
    """While this is open, what is hot is brought over first. Not with a limit: only the mirror keeps it."""
    if station.record.bandwidth is not None:
        yield
        return
    task = asyncio.create_task(keep_first(station, disk))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def keep_first(station: Station, disk: DiskRecord) -> None:
    """Until the mirror is near the end. A kill here leaves the windows, which go with the mirror."""
    try:
        await windows.open_sides(station.qemu, disk)
        await _keep_on(station, disk)
    except (EsdError, OSError) as error:
        logger.info("what is hot does not come first any more", disk=disk.id, why=str(error))


async def _keep_on(station: Station, disk: DiskRecord) -> None:
    heat, first, place = Heat(), 0, (station.host, station.sockets.nbd, disk.suid)
    async with windows.sides(*place) as (own, far), windows.filling(*place) as filling:
        while first * REGION < own.size:
            began = time.monotonic()
            local = by_region((await own.map(offset=first * REGION))[ALLOCATION_DEPTH])
            # After the map, so that what the mirror did meanwhile is not taken for the guest's.
            first = await _ahead(station, disk)
            before, heat = heat, after(heat, local, first)
            wanted = await _reachable(station, hottest(before, heat, first))
            due = time.monotonic() + max(LOOK_SECONDS, LOOK_SHARE * (time.monotonic() - began))
            heat = replace(heat, asked=heat.asked | await _bring(far, filling, wanted, due))
            await asyncio.sleep(due - time.monotonic())


async def _ahead(station: Station, disk: DiskRecord) -> int:
    """The first region that the mirror has not begun."""
    job = (await jobs.running(station.qemu)).get(names.move_job(disk.suid))
    done = job.done if job else disk.size
    return -(-(done + AHEAD) // REGION)


async def _reachable(station: Station, wanted: list[int]) -> list[int]:
    """All of it, or nothing while a link is known to be down."""
    for upstream in station.record.upstream if wanted else ():
        if await links.down_seconds(station.host, station.paths, upstream.migration) is not None:
            return []
    return wanted


async def _bring(far: nbd.Client, filling: nbd.Client, wanted: Sequence[int], due: float) -> set[int]:
    """Bring these regions, in this order, and begin none after `due`; returns those that were begun."""
    begun: set[int] = set()

    async def bring(number: int) -> None:
        if time.monotonic() < due:
            begun.add(number)
            await _bring_region(far, filling, number)

    await spread(wanted, bring, WIDTH)
    return begun


async def _bring_region(far: nbd.Client, filling: nbd.Client, number: int) -> None:
    """Its data, and no holes: they are not moved. What cannot be had is the mirror's business too."""
    start = number * REGION
    try:
        maps = await far.map(offset=start, length=max(0, min(REGION, far.size - start)))
        data = [Range(e.offset, e.length) for e in maps[BASE_ALLOCATION] if not e.flags & STATE_ZERO]
        failed = await nbd.fill(filling, data, chunk=CHUNK, depth=1)
    except NbdError as error:
        logger.info("hot first", region=number, why=str(error))
        return
    logger.info("hot first", region=number, failed=len(failed))
