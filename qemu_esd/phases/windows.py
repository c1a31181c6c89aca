"""Windows into a target QEMU: local NBD exports by which maps are read and ranges are made local.

They are on a unix socket in a 0700 folder, read-only, and carry questions and answers but no disk data.
Up to four per disk: `map` shows the overlay with its allocation depth, `fill` goes through the copy-on-read filter; and
for as long as there is a link, `own` shows the overlay as if there were nothing below it, and `far` what is below it,
the source. Through `map` each piece of the overlay's tables is a question to the source, so for a quick look, and
beside a move, the latter two are asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from qemu_esd import nbd
from qemu_esd.errors import QemuError
from qemu_esd.graph import names
from qemu_esd.hosts.base import Host, open_unix
from qemu_esd.model.record import DiskRecord
from qemu_esd.nbd.walk import BY_PIECES, BY_TIME, Pace
from qemu_esd.qmp import blockdev, exports
from qemu_esd.qmp.session import Session

BUSY = "already"
SECTOR = 512
# Of a map that is asked for in a hurry. With four at once 1 TiB takes half as long as with one, with eight as long.
STRETCHES, SHORTEST = 4, 1 << 30


async def open_all(qemu: Session, socket: str, disks: Iterable[DiskRecord]) -> None:
    """Make sure that the windows of these disks are open. May be called at any time, any number of times."""
    await serve(qemu, socket)
    present, nodes = await exports.ids(qemu), await blockdev.names(qemu)
    for disk in disks:
        suid = disk.suid
        if _id(suid, "map") not in present:
            await exports.add(qemu, _id(suid, "map"), names.overlay(suid, disk.level), f"{suid}.map", depth=True)
        if names.copy_on_read(suid) in nodes and _id(suid, "fill") not in present:
            await exports.add(qemu, _id(suid, "fill"), names.copy_on_read(suid), f"{suid}.fill")
        # With two overlays what is in the lower one is neither its own nor far.
        if names.remote(suid) in nodes and disk.level == 0:
            await open_sides(qemu, disk)


async def open_changes(qemu: Session, socket: str, disk: DiskRecord) -> None:
    """A third one, for as long as it is asked what has changed: the node must be there."""
    await serve(qemu, socket)
    await exports.add(qemu, names.changed(disk.suid), names.changed(disk.suid), f"{disk.suid}.changes")


async def serve(qemu: Session, socket: str) -> None:
    """Make sure that the NBD server of a QEMU of ours runs."""
    try:
        await exports.serve_unix(qemu, socket)
    except QemuError as error:
        # A QEMU has one NBD server; in a QEMU that we started it is this one.
        if BUSY not in error.reason:
            raise


async def open_sides(qemu: Session, disk: DiskRecord) -> None:
    """Make sure that the windows `own` and `far` of a disk are open.

    A raw node of a fixed size is no filter: no question goes through it to the overlay's backing, and so to the source.
    It takes whole sectors only.
    """
    suid, own, size = disk.suid, names.own(disk.suid), disk.size - disk.size % SECTOR
    if own not in await blockdev.names(qemu):
        view = {"driver": "raw", "node-name": own, "file": names.overlay(suid, disk.level), "size": size}
        await blockdev.add(qemu, {**view, "read-only": True})
    present = await exports.ids(qemu)
    if _id(suid, "own") not in present:
        await exports.add(qemu, _id(suid, "own"), own, f"{suid}.own", depth=True)
    if _id(suid, "far") not in present:
        await exports.add(qemu, _id(suid, "far"), names.remote(suid), f"{suid}.far")


async def close_sides(qemu: Session, suid: str) -> None:
    """Close them, so that overlay and link can be removed."""
    for id in {_id(suid, "own"), _id(suid, "far")} & await exports.ids(qemu):
        await exports.delete(qemu, id)
    await blockdev.drop(qemu, names.own(suid))


async def close_fill(qemu: Session, suid: str) -> None:
    """Close the window above the copy-on-read filter, so that the filter can be removed."""
    if _id(suid, "fill") in await exports.ids(qemu):
        await exports.delete(qemu, _id(suid, "fill"))


async def close_all(qemu: Session) -> None:
    await exports.stop_serving(qemu)


def _id(suid: str, role: str) -> str:
    return names.export_id(suid, role)


@asynccontextmanager
async def look(host: Host, socket: str, suid: str) -> AsyncIterator[nbd.Client]:
    """The `map` window of a device."""
    async with _opened(host, socket, f"{suid}.map", nbd.ALLOCATION_DEPTH, nbd.BASE_ALLOCATION) as client:
        yield client


@asynccontextmanager
async def sides(host: Host, socket: str, suid: str) -> AsyncIterator[tuple[nbd.Client, nbd.Client]]:
    """The `own` and the `far` window of a device."""
    async with _opened(host, socket, f"{suid}.own", nbd.ALLOCATION_DEPTH) as own:
        async with _opened(host, socket, f"{suid}.far", nbd.BASE_ALLOCATION) as far:
            yield own, far


@asynccontextmanager
async def _opened(host: Host, socket: str, export: str, *contexts: str) -> AsyncIterator[nbd.Client]:
    reader, writer = await open_unix(host, socket)
    async with nbd.open(reader, writer, export, contexts) as client:
        yield client


@asynccontextmanager
async def changes(host: Host, socket: str, suid: str) -> AsyncIterator[nbd.Client]:
    """The window of `open_changes`."""
    reader, writer = await open_unix(host, socket)
    async with nbd.open(reader, writer, f"{suid}.changes", (nbd.BASE_ALLOCATION,)) as client:
        yield client


@asynccontextmanager
async def filling(host: Host, socket: str, suid: str) -> AsyncIterator[nbd.Client]:
    """The `fill` window of a device."""
    async with _opened(host, socket, f"{suid}.fill") as client:
        yield client


async def absent(host: Host, socket: str, suid: str) -> list[nbd.Range]:
    """What of a device is not in its overlay, holes too."""
    reader, writer = await open_unix(host, socket)
    async with nbd.open(reader, writer, f"{suid}.map", (nbd.ALLOCATION_DEPTH,)) as client:
        return nbd.absent((await client.map())[nbd.ALLOCATION_DEPTH])


async def residency(host: Host, socket: str, suid: str) -> nbd.Residency:
    """Where each byte of a device is now."""
    async with look(host, socket, suid) as client:
        maps = await client.map()
        return nbd.residency(maps[nbd.ALLOCATION_DEPTH], maps[nbd.BASE_ALLOCATION])


# What a source has does not change while it serves it: its maps, by the names of exports, of which no two are alike.
# So whoever looks again and again asks nothing over a link that may be busy.
_far_maps: dict[str, list[nbd.Extent]] = {}
_MOST_EXTENTS, _MOST_MAPS = 1 << 16, 256


async def glance(host: Host, socket: str, suid: str, export: str) -> nbd.Residency:
    """The same for a picture, and no proof: what the guest does between the answers of `own` and `far` may not show.

    `export` is the name of the link's export. A disk of 1 TiB takes part of a second, and many seconds through `map`.
    """
    try:
        async with sides(host, socket, suid) as (own, far):
            # An odd number of bytes is told by the overlay as whole sectors.
            if own.size == far.size:
                here, there = _stretched(own, nbd.ALLOCATION_DEPTH, BY_TIME), _far_map(far, export)
                return nbd.residency(*await asyncio.gather(here, there))
    except nbd.NbdRefusedError:
        # They are closed: since a move that was undone, or there are two overlays.
        pass
    return await residency(host, socket, suid)


async def _far_map(far: nbd.Client, export: str) -> list[nbd.Extent]:
    known = _far_maps.get(export) or await _stretched(far, nbd.BASE_ALLOCATION, BY_PIECES)
    if len(known) < _MOST_EXTENTS and len(_far_maps) < _MOST_MAPS:
        _far_maps[export] = known
    return known


async def _stretched(client: nbd.Client, context: str, pace: Pace) -> list[nbd.Extent]:
    """The whole map, by several stretches side by side: each piece of a stretch is a round trip."""
    step = max(client.size // STRETCHES, SHORTEST)
    starts = range(0, client.size, step - step % SHORTEST)
    asked = [client.map(offset=start, length=min(starts.step, client.size - start), pace=pace) for start in starts]
    return nbd.merge(extent for part in await asyncio.gather(*asked) for extent in part[context])
