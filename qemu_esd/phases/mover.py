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
import time
from collections.abc import Awaitable, Callable
from errno import ENOSPC

from qemu_esd import nbd
from qemu_esd.errors import UnfinishedError
from qemu_esd.graph import names
from qemu_esd.graph.handlers import overlays
from qemu_esd.log import logger
from qemu_esd.model.record import DiskRecord
from qemu_esd.phases import windows
from qemu_esd.phases.station import Station
from qemu_esd.qmp import blockdev, jobs
from qemu_esd.qmp.session import Session

# A mirror of a whole disk may take very long; its progress is shown meanwhile.
MIRROR_SECONDS = 30 * 86400.0
PROGRESS_SECONDS = 0.5
DATA_CHUNK = 4 << 20
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
    if not await _mostly_hole(station, disk):
        await mirror(station, disk, on_bytes)
        await fill(station, disk, on_bytes)
        return
    # The job would stand in the way: the map takes many times as long beside it.
    await end_mirror(station.qemu, disk.suid)
    try:
        await fill(station, disk, on_bytes)
    except asyncio.CancelledError:
        # It goes on without us. After a kill here it does not, until `settle` is said again.
        await start_mirror(station, disk)
        raise


async def _mostly_hole(station: Station, disk: DiskRecord) -> bool:
    """Whether the map leads to the data much sooner than the mirror. Never with a limit: only the mirror keeps it."""
    if station.record.bandwidth is not None:
        return False
    residency = await _residency(station, disk)
    return residency.hole_bytes > MUCH_HOLE + residency.remote_bytes


async def mirror(station: Station, disk: DiskRecord, on_bytes: OnBytes) -> None:
    """Start the mirror, or join the one that runs, and wait until it has read everything or failed."""
    qemu, id = station.qemu, names.move_job(disk.suid)
    await start_mirror(station, disk)
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


async def start_mirror(station: Station, disk: DiskRecord) -> None:
    qemu, sink = station.qemu, names.sink(disk.suid)
    if names.move_job(disk.suid) in await jobs.running(qemu):
        return
    if sink not in await blockdev.names(qemu):
        await blockdev.add(qemu, {"driver": "null-co", "node-name": sink, "size": disk.size})
    speed = station.record.bandwidth or 0
    await jobs.start_mirror(qemu, names.move_job(disk.suid), names.copy_on_read(disk.suid), sink, speed)


async def end_mirror(qemu: Session, suid: str) -> None:
    """End the job if there is one (it has nothing to complete), and remove its sink."""
    id = names.move_job(suid)
    if id in await jobs.running(qemu):
        await jobs.cancel(qemu, id)
        await jobs.wait_status(qemu, id, frozenset({"concluded"}), MIRROR_SECONDS)
        await jobs.dismiss(qemu, id)
    if names.sink(suid) in await blockdev.names(qemu):
        await blockdev.delete(qemu, names.sink(suid))


async def fill(station: Station, disk: DiskRecord, on_bytes: OnBytes) -> None:
    """Fill what is missing, until the maps prove that nothing is."""

    async def missing() -> list[nbd.Range]:
        return (await _residency(station, disk)).where(nbd.Where.REMOTE)

    await _fill_until_none(station, disk, missing, disk.size, on_bytes)


async def fill_only(station: Station, disk: DiskRecord, wanted: list[nbd.Range], on_bytes: OnBytes) -> None:
    """Fill these ranges, holes too, until the map proves that they are in the overlay; nothing else is asked for."""

    async def missing() -> list[nbd.Range]:
        return nbd.common(wanted, await windows.absent(station.host, station.sockets.nbd, disk.suid))

    await _fill_until_none(station, disk, missing, _bytes(wanted), on_bytes)


async def _fill_until_none(
    station: Station,
    disk: DiskRecord,
    missing: Callable[[], Awaitable[list[nbd.Range]]],
    total: int,
    on_bytes: OnBytes,
) -> None:
    fruitless, before = 0, disk.size + 1
    while left := await missing():
        fruitless = 0 if _bytes(left) < before else fruitless + 1
        if fruitless == FRUITLESS:
            raise _stuck(station, disk, left)
        before = _bytes(left)
        on_bytes(total - before, total)
        await _fill_once(station, disk, left)


def _bytes(ranges: list[nbd.Range]) -> int:
    return sum(one.length for one in ranges)


async def _residency(station: Station, disk: DiskRecord) -> nbd.Residency:
    return await windows.residency(station.host, station.sockets.nbd, disk.suid)


async def _fill_once(station: Station, disk: DiskRecord, ranges: list[nbd.Range]) -> None:
    async with windows.filling(station.host, station.sockets.nbd, disk.suid) as client:
        if (rate := station.record.bandwidth) is not None:
            failed = await _fill_slowly(client, ranges, rate)
        else:
            failed = await nbd.fill(client, ranges, chunk=DATA_CHUNK)
        # By clusters, so that only those stay behind of which nothing can be had.
        again = [nbd.Range(error.offset, error.length) for error in failed]
        failed = await nbd.fill(client, again, chunk=overlays.CLUSTER, give_up=GIVE_UP)
    if any(error.errno == ENOSPC for error in failed):
        raise _full(station, disk)


async def _fill_slowly(client: nbd.Client, ranges: list[nbd.Range], rate: int) -> list[nbd.FillError]:
    """One piece after the other, each when its time has come: `rate` is bytes per second."""
    failed, begun, done = list[nbd.FillError](), time.monotonic(), 0
    chunk = min(DATA_CHUNK, max(rate // overlays.CLUSTER, 1) * overlays.CLUSTER)
    for piece in nbd.chunks(ranges, chunk, client.min_block, client.size):
        failed += await nbd.fill(client, [piece], chunk=chunk)
        done += piece.length
        await asyncio.sleep(begun + done / rate - time.monotonic())
    return failed


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
