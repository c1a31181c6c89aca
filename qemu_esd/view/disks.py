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

# A map of scattered data is a question to the source per piece.
RESIDENCY_SECONDS = 20.0
# How often the watch's note is looked for while a map is awaited.
SILENCE_SECONDS = 1.0


async def disk_views(station: Station) -> tuple[DiskView, ...]:
    return tuple(each.view for each in await disk_maps(station, station.guest.disks))


async def disk_maps(station: Station, disks: Iterable[Disk]) -> tuple[DiskMap, ...]:
    """These disks of a guest, each with the map that its figures are from."""
    known = {disk.suid: disk for disk in station.record.disks}
    maps = [_disk(station, disk.suid, disk.id, disk.size, known.get(disk.suid)) for disk in disks]
    return tuple(await asyncio.gather(*maps))


async def _disk(station: Station, suid: str, id: str, size: int, record: DiskRecord | None) -> DiskMap:
    """A disk that was never moved, or is settled, is all local; only `miss` leaves data behind for good."""
    if record is None or record.handler is None:
        return DiskMap(DiskView(id, suid, "local", "local", size, size, 0, needs_source=False), None)
    handler, link = record.handler, link_of(record.chain)
    view = DiskView(id, suid, handler, "local", size, size, 0, handler.needs_source and link is not None)
    if link is not None and len(record.chain) == 1:
        return DiskMap(replace(view, local_bytes=0, remote_bytes=size), None)
    if link is None and handler is not Handler.MISS:
        return DiskMap(view, None)
    # By these one knows what is below the overlay: another policy, or one more overlay, is another thing.
    now = await _residency(station, suid, (suid, link and link.export, handler.needs_source, record.level))
    local, remote = (now.local_bytes, now.remote_bytes) if now else (None, None)
    return DiskMap(replace(view, local_bytes=local, remote_bytes=remote), now)


async def _residency(station: Station, suid: str, below: object) -> Residency | None:
    """Where each byte of a device is now, or None while it cannot be asked: its window is closed, or a link is dead.
    `below` names what is below its overlay.

    A map is a question to the source too, so nobody waits for one when the watch of a link knows better.
    """
    tasks = list[asyncio.Future[Residency | None]]()
    try:
        async with asyncio.timeout(RESIDENCY_SECONDS):
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
