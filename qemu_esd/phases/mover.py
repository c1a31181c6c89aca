"""The background move: make every block of a disk local while the guest uses it.

A mirror job reads everything through the copy-on-read filter into a sink that keeps nothing: it has many requests in
flight and lives in QEMU, so it needs nobody. Then what is still missing (errors) is filled range by range, and the maps
say when nothing is missing. `block-stream` moves no data: it can lose some silently.

Holes of the source are not moved: where the overlay has nothing and the source nothing but zeroes, the overlay reads as
zeroes without it too. The mirror asks about each piece of them over the link, so that a disk that is mostly hole is
filled by the map instead.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Coroutine
from errno import ENOSPC
from typing import Any

from qemu_esd import nbd
from qemu_esd.errors import UnfinishedError
from qemu_esd.graph import names
from qemu_esd.graph.handlers import overlays
from qemu_esd.log import logger
from qemu_esd.model.disk import link_of
from qemu_esd.model.pace import AUTO, Bandwidth, in_flight
from qemu_esd.model.record import DiskRecord
from qemu_esd.phases import hot, pace, round_trip, windows
from qemu_esd.phases.station import Station
from qemu_esd.phases.stream import unless
from qemu_esd.qmp import blockdev, jobs
from qemu_esd.qmp.session import Session

# A mirror of a whole disk may take very long; its progress is shown meanwhile.
MIRROR_SECONDS = 30 * 86400.0
PROGRESS_SECONDS = 0.5
DATA_CHUNK = 4 << 20
# Under a limit: the guest's reads wait behind one of them at most.
PACED_CHUNK = 1 << 20
# The mirror goes over so much hole within a second or two; over much more it takes longer than over the data.
MUCH_HOLE = 16 << 30
# Passes that bring nothing nearer before we call it stuck.
FRUITLESS = 3
# With more of them that fail it is the source, and not some sectors.
GIVE_UP = 1024
# How many ranges are told of.
TOLD = 3

OnBytes = Callable[[int, int], None]


async def make_local(station: Station, disk: DiskRecord, on_bytes: OnBytes) -> None:
    """Returns when nothing of `disk` is elsewhere but holes. `on_bytes(done, total)` tells the progress.

    Raises UnfinishedError when some range cannot be read; what is there stays, and the next try goes on from it.
    """
    await _paced(station, disk, lambda throttle: _make_local(station, disk, throttle, on_bytes))
    on_bytes(disk.size, disk.size)


async def _paced(
    station: Station, disk: DiskRecord, move: Callable[[pace.Throttle], Coroutine[Any, Any, None]]
) -> None:
    """At the pace that the guest's record says, which is adapted meanwhile if it says so."""
    bandwidth = station.record.bandwidth
    throttle = pace.Throttle(pace.first_limit(bandwidth))
    moving = move(throttle)
    await (unless(moving, pace.adapt(station, disk, throttle)) if bandwidth == AUTO else moving)


async def _make_local(station: Station, disk: DiskRecord, throttle: pace.Throttle, on_bytes: OnBytes) -> None:
    if not _mostly_hole(disk, station.record.bandwidth):
        await mirror(station, disk, throttle, on_bytes)
        await fill(station, disk, throttle, on_bytes)
        return
    # The job would stand in the way: the map takes many times as long beside it.
    await end_mirror(station.qemu, disk.suid)
    try:
        await fill(station, disk, throttle, on_bytes)
    except asyncio.CancelledError:
        # It goes on without us. After a kill here it does not, until `settle` is said again.
        await start_mirror(station, disk, throttle)
        raise


def _mostly_hole(disk: DiskRecord, bandwidth: Bandwidth) -> bool:
    """Whether the map leads to the data much sooner than the mirror, for which holes count too where it has a limit.

    By what was known when the guest moved: over a long way to the source the map of scattered data takes minutes.
    """
    much = MUCH_HOLE if bandwidth is None else 0
    return disk.size - disk.data > much + disk.data


async def mirror(station: Station, disk: DiskRecord, throttle: pace.Throttle, on_bytes: OnBytes) -> None:
    """Start the mirror, or join the one that runs, and wait until it has read everything or failed."""
    qemu, id = station.qemu, names.move_job(disk.suid)
    heat = hot.Heat() if id in await jobs.running(qemu) else await hot.before(station, disk, throttle)
    await start_mirror(station, disk, throttle)
    async with hot.beside(station, disk, throttle, heat):
        await _first_pass(station, id, on_bytes)
    if await jobs.has_stopped(qemu, id):
        logger.warning("the background job met an error; what is missing is filled piece by piece", disk=disk.id)
    await end_mirror(qemu, disk.suid)


async def _first_pass(station: Station, id: str, on_bytes: OnBytes) -> None:
    """Wait until the job has gone through the disk once, or met an error. This has no event, so it is looked at.

    Not until it is ready: it reads again what the guest writes, which is local already, and may never catch up.
    """
    goal = 0
    while True:
        job = (await jobs.running(station.qemu)).get(id)
        if job is None or job.status in ("ready", "concluded") or 0 < goal <= job.done:
            return
        if job.status == "paused" and await jobs.has_stopped(station.qemu, id):
            return
        goal = goal or job.total
        on_bytes(job.done, job.total)
        await asyncio.sleep(PROGRESS_SECONDS)


async def start_mirror(station: Station, disk: DiskRecord, throttle: pace.Throttle) -> None:
    """Start the job at the limit of the moment, if it does not run already."""
    qemu, sink = station.qemu, names.sink(disk.suid)
    if names.move_job(disk.suid) in await jobs.running(qemu):
        return
    if sink not in await blockdev.names(qemu):
        await blockdev.add(qemu, {"driver": "null-co", "node-name": sink, "size": disk.size})
    link = link_of(disk.chain)
    size = in_flight(station.record.bandwidth, await round_trip.seconds(station.host, link) if link else 0)
    id, top = names.move_job(disk.suid), names.copy_on_read(disk.suid)
    await jobs.start_mirror(qemu, id, top, sink, throttle.each, size)


async def end_mirror(qemu: Session, suid: str) -> None:
    """End the job if there is one (it has nothing to complete), and remove what was made for it."""
    id = names.move_job(suid)
    if id in await jobs.running(qemu):
        await jobs.cancel(qemu, id)
        await jobs.wait_status(qemu, id, frozenset({"concluded"}), MIRROR_SECONDS)
        await jobs.dismiss(qemu, id)
    await blockdev.drop(qemu, names.sink(suid))


async def fill(station: Station, disk: DiskRecord, throttle: pace.Throttle, on_bytes: OnBytes) -> None:
    """Fill what is missing, until the maps prove that nothing is."""

    async def missing() -> list[nbd.Range]:
        return (await _residency(station, disk)).where(nbd.Where.REMOTE)

    await _fill_until_none(station, disk, throttle, missing, lambda left: on_bytes(disk.size - left, disk.size))


async def fill_only(station: Station, disk: DiskRecord, wanted: list[nbd.Range], on_bytes: OnBytes) -> None:
    """Fill these ranges, holes too, until the map proves that they are in the overlay; nothing else is asked for."""
    total = _bytes(wanted)

    async def missing() -> list[nbd.Range]:
        return nbd.common(wanted, await windows.absent(station.host, station.windows, disk.suid))

    async def filling(throttle: pace.Throttle) -> None:
        await _fill_until_none(station, disk, throttle, missing, lambda left: on_bytes(total - left, total))

    await _paced(station, disk, filling)


async def _fill_until_none(
    station: Station,
    disk: DiskRecord,
    throttle: pace.Throttle,
    missing: Callable[[], Awaitable[list[nbd.Range]]],
    on_left: Callable[[int], None],
) -> None:
    fruitless, before = 0, disk.size + 1
    while left := await missing():
        now = _bytes(left)
        fruitless = 0 if now < before else fruitless + 1
        if fruitless == FRUITLESS:
            raise _stuck(station, disk, left)
        before = now
        on_left(now)
        await _fill_once(station, disk, throttle, left)


def _bytes(ranges: list[nbd.Range]) -> int:
    return sum(one.length for one in ranges)


async def _residency(station: Station, disk: DiskRecord) -> nbd.Residency:
    return await windows.residency(station.host, station.windows, disk.suid)


async def _fill_once(station: Station, disk: DiskRecord, throttle: pace.Throttle, ranges: list[nbd.Range]) -> None:
    chunk = PACED_CHUNK if throttle.speed else DATA_CHUNK
    async with windows.filling(station.host, station.windows, disk.suid) as client:
        failed = await nbd.fill(client, ranges, chunk=chunk, admit=throttle.admit)
        # By clusters, so that only those stay behind of which nothing can be had.
        again = [nbd.Range(error.offset, error.length) for error in failed]
        failed = await nbd.fill(client, again, chunk=overlays.CLUSTER, give_up=GIVE_UP)
    if any(error.errno == ENOSPC for error in failed):
        raise _full(station, disk)


def _full(station: Station, disk: DiskRecord) -> UnfinishedError:
    return UnfinishedError(
        f"no space is left for {disk.id}",
        host=station.host.name,
        hint=f"make room there, then: qemu-esd settle {shlex.quote(station.record.name)}",
    )


def _stuck(station: Station, disk: DiskRecord, left: list[nbd.Range]) -> UnfinishedError:
    """Which disk, which bytes of it, from where."""
    name, source = shlex.quote(station.record.name), station.record.upstream[0].host
    told = [f"{part.length} bytes from byte {part.offset} on" for part in left[:TOLD]]
    more = f" and {len(left) - TOLD} more ranges" if len(left) > TOLD else ""
    return UnfinishedError(
        f"of {disk.id} cannot be brought over: {', '.join(told)}{more}; all else of it is there",
        host=station.host.name,
        hint=f"see that {source} answers and can read its image, then: qemu-esd settle {name}",
    )
