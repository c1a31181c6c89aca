"""Where the bytes of a guest's disks are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from qemu_esd.errors import EsdError
from qemu_esd.model.disk import Disk, link_of
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import DiskRecord
from qemu_esd.nbd import Residency
from qemu_esd.phases import windows
from qemu_esd.phases.station import Station
from qemu_esd.view.facts import DiskMap, DiskView
from qemu_esd.view.link import silence

# A map of scattered data is a question to the source per piece, each of which waits behind what a background move
# has in flight: then its own figures have to do.
RESIDENCY_SECONDS, BUSY_SECONDS = 20.0, 4.0
# How often the watch's note is looked for while a map is awaited.
SILENCE_SECONDS = 1.0


async def disk_views(station: Station, *, busy: bool) -> tuple[DiskView, ...]:
    """`busy`: a background move fills the link."""
    seconds = BUSY_SECONDS if busy else RESIDENCY_SECONDS
    return tuple(each.view for each in await disk_maps(station, station.guest.disks, seconds))


async def disk_maps(station: Station, disks: Iterable[Disk], seconds: float = RESIDENCY_SECONDS) -> tuple[DiskMap, ...]:
    """These disks of a guest, each with the map that its figures are from, if that comes within `seconds`."""
    known = {disk.suid: disk for disk in station.record.disks}
    maps = [_disk(station, disk, known.get(disk.suid), seconds) for disk in disks]
    return tuple(await asyncio.gather(*maps))


async def _disk(station: Station, disk: Disk, record: DiskRecord | None, seconds: float) -> DiskMap:
    """A disk that was never moved, or is settled, is all local; only `miss` leaves data behind for good."""
    suid, id, size = disk.suid, disk.id, disk.size
    if record is None or record.handler is None:
        return DiskMap(DiskView(id, suid, "local", "local", size, size, 0, needs_source=False), None)
    handler, link = record.handler, link_of(record.chain)
    view = DiskView(id, suid, handler, "local", size, size, 0, handler.needs_source and link is not None)
    if link is not None and len(record.chain) == 1:
        return DiskMap(replace(view, local_bytes=0, remote_bytes=size), None)
    if link is None and handler is not Handler.MISS:
        return DiskMap(view, None)
    # By these one knows what is below the overlay: another policy, or one more overlay, is another thing.
    below = (suid, link and link.export, handler.needs_source, record.level)
    now = await _residency(station, suid, below, seconds)
    local, remote = (now.local_bytes, now.remote_bytes) if now else (None, None)
    return DiskMap(replace(view, local_bytes=local, remote_bytes=remote), now)


async def _residency(station: Station, suid: str, below: object, seconds: float) -> Residency | None:
    """Where each byte of a device is now, or None while it cannot be asked: its window is closed, or a link is dead.
    `below` names what is below its overlay.

    A map is a question to the source too, so nobody waits for one when the watch of a link knows better.
    """
    tasks = list[asyncio.Future[Residency | None]]()
    try:
        async with asyncio.timeout(seconds):
            if await silence(station) is not None:
                return None
            asked = windows.glance(station.host, station.windows, suid, below)
            tasks += map(asyncio.ensure_future, (asked, _until_silence(station)))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
    except (EsdError, OSError, TimeoutError):
        return None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_silence(station: Station) -> None:
    """Returns when the watch of a link says that nobody answers there. It has no event: it is a note on the host."""
    while True:
        if await silence(station) is not None:
            return
        await asyncio.sleep(SILENCE_SECONDS)
