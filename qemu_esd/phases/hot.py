"""Hot first: what the guest is about to touch comes sooner than the mirror, which goes from the first byte to the last.

What is local beyond the mirror was touched by the guest since it came here, or asked for by us: copy-on-read keeps what
is read. Around it more is likely to be touched next. So the disk is looked at in regions: those where the guest has
been are brought over first, then their neighbours. The mirror passes over what it finds local.

Where the guest has been a disk is in pieces, some of them here. Through them the mirror would read one after another,
each a round trip, and what the guest wants of the same MiB would wait for all of them: over 10 ms nearly two seconds.
So what is hot at first comes before the mirror begins, and each piece is asked for by itself.

Looking asks nobody but the overlay (the window `own`): beside the mirror a question to the source waits as long as a
read of the guest does, and a map has thousands.

It lives in this process and ends with it: the mirror does not need it. Nothing that goes wrong here is an error of the
move.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
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
from qemu_esd.phases import links, pace, windows
from qemu_esd.phases.station import Station
from qemu_esd.qmp import jobs

REGION = 4 << 20
# So many regions at once, and of each so many chunks: more than 16 QEMU does not take from one connection.
CHUNK, WIDTH, DEPTH = 128 << 10, 8, 2
# Under a limit the link is not to be kept busy, and a region takes long: the next look is not to wait for eight.
PACED_WIDTH = 1
# No region is begun after so long before the mirror, and none is waited for after so long again.
BEFORE_SECONDS = 5.0
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
    for number, part in _split(extent for extent in depth if extent.flags == LOCAL_DEPTH):
        local[number] += part.length
    return local


def absent_by_region(depth: Iterable[Extent]) -> dict[int, list[Range]]:
    """What is not local, per region."""
    absent: dict[int, list[Range]] = {}
    for number, part in _split(nbd.absent(depth)):
        absent.setdefault(number, []).append(part)
    return absent


def _split(parts: Iterable[Extent | Range]) -> Iterator[tuple[int, Range]]:
    """Cut at the borders of regions."""
    for part in parts:
        start = part.offset
        while start < part.end:
            end = min(part.end, start - start % REGION + REGION)
            yield start // REGION, Range(start, end - start)
            start = end


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


async def before(station: Station, disk: DiskRecord, throttle: pace.Throttle) -> Heat:
    """Bring over what is hot now, for BEFORE_SECONDS about. A kill here leaves nothing, and no job yet."""
    try:
        async with asyncio.timeout(2 * BEFORE_SECONDS), _seen(station, disk) as seen:
            depth = await seen.depth(0)
            heat = after(Heat(), by_region(depth), 0)
            wanted = [number for number in hottest(Heat(), heat, 0) if number in heat.touched]
            due = time.monotonic() + BEFORE_SECONDS
            asked = await _bring(seen, throttle, await _reachable(station, wanted), absent_by_region(depth), due)
            return replace(heat, asked=asked)
    except (EsdError, OSError, TimeoutError) as error:
        logger.info("what is hot does not come before the rest", disk=disk.id, why=str(error))
        return Heat()


@asynccontextmanager
async def beside(station: Station, disk: DiskRecord, throttle: pace.Throttle, heat: Heat) -> AsyncIterator[None]:
    """While this is open, what is hot is brought over first. Under a limit half of it goes there."""
    task = asyncio.create_task(keep_first(station, disk, throttle, heat))
    try:
        yield
    finally:
        task.cancel()
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, Exception):
            logger.warning("what is hot did not come first", disk=disk.id, why=repr(outcome))


async def keep_first(station: Station, disk: DiskRecord, throttle: pace.Throttle, heat: Heat) -> None:
    """Until the mirror is near the end. A kill here leaves nothing."""
    try:
        async with _seen(station, disk) as seen:
            await _keep_on(station, disk, throttle, heat, seen)
    except (EsdError, OSError) as error:
        logger.info("what is hot does not come first any more", disk=disk.id, why=str(error))


@dataclass(frozen=True)
class _Seen:
    """A disk through its windows."""

    own: nbd.Client
    far: nbd.Client
    filling: nbd.Client

    async def depth(self, first: int) -> list[Extent]:
        """What of it is local from the region `first` on."""
        return (await self.own.map(offset=first * REGION))[ALLOCATION_DEPTH]


@asynccontextmanager
async def _seen(station: Station, disk: DiskRecord) -> AsyncIterator[_Seen]:
    place = (station.host, station.windows, disk.suid)
    async with windows.sides(*place) as (own, far), windows.filling(*place) as filling:
        yield _Seen(own, far, filling)


async def _keep_on(station: Station, disk: DiskRecord, throttle: pace.Throttle, heat: Heat, seen: _Seen) -> None:
    first = 0
    while first * REGION < seen.own.size:
        began = time.monotonic()
        depth = await seen.depth(first)
        # After the map, so that what the mirror did meanwhile is not taken for the guest's.
        first = await _ahead(station, disk)
        before, heat = heat, after(heat, by_region(depth), first)
        wanted = await _reachable(station, hottest(before, heat, first))
        due = time.monotonic() + max(LOOK_SECONDS, LOOK_SHARE * (time.monotonic() - began))
        async with pace.halved(station, disk, throttle, bool(wanted)):
            heat = replace(heat, asked=heat.asked | await _bring(seen, throttle, wanted, absent_by_region(depth), due))
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


async def _bring(
    seen: _Seen, throttle: pace.Throttle, wanted: Sequence[int], absent: Mapping[int, list[Range]], due: float
) -> frozenset[int]:
    """Bring these regions, in this order, and begin none after `due`; returns those that were begun."""
    begun: set[int] = set()

    async def bring(number: int) -> None:
        if time.monotonic() < due:
            begun.add(number)
            await _bring_region(seen, throttle, number, absent.get(number, []))

    await spread(wanted, bring, PACED_WIDTH if throttle.speed else WIDTH)
    return frozenset(begun)


async def _bring_region(seen: _Seen, throttle: pace.Throttle, number: int, absent: list[Range]) -> None:
    """Its data that is absent, and no holes: they are not moved. What cannot be had is the mirror's business too."""
    start = number * REGION
    try:
        maps = await seen.far.map(offset=start, length=min(REGION, seen.own.size - start))
        data = [Range(e.offset, e.length) for e in maps[BASE_ALLOCATION] if not e.flags & STATE_ZERO]
        pieces = nbd.common(data, absent)
        failed = await nbd.fill(seen.filling, pieces, chunk=CHUNK, depth=DEPTH, admit=throttle.admit)
    except NbdError as error:
        logger.info("hot first", region=number, why=str(error))
        return
    logger.info("hot first", region=number, pieces=len(pieces), failed=len(failed))
