"""Windows into a target QEMU: local NBD exports by which maps are read and ranges are made local.

They are on a unix socket in a 0700 folder, read-only, and carry questions and answers but no disk data.
Per disk: `map` shows the overlay with all that is below it, `own` the overlay as if there were nothing below it, and
`far` what is below it, the source; by `fill` ranges are made local, where reads are kept.

A map is put together from `own` and `far`. `map` would tell the same, but asks the source about each piece that the
overlay's tables fall into: a disk of 1 TiB with nothing in it has 131,072 of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from qemu_esd import nbd
from qemu_esd.errors import QemuError
from qemu_esd.graph import names
from qemu_esd.hosts.base import Host, open_unix
from qemu_esd.model.record import DiskRecord
from qemu_esd.nbd.walk import BY_PIECES, BY_TIME, Pace
from qemu_esd.phases.station import Station
from qemu_esd.qmp import blockdev, exports
from qemu_esd.qmp.session import Session

BUSY = "already"
SECTOR = 512
CONTEXTS = (nbd.ALLOCATION_DEPTH, nbd.BASE_ALLOCATION)
# Of a map that is asked for in a hurry. With four at once 1 TiB takes half as long as with one, with eight as long.
STRETCHES, SHORTEST = 4, 1 << 30


async def open_all(station: Station, disks: Iterable[DiskRecord]) -> None:
    """Make sure that the windows of these disks are open. May be called at any time, any number of times."""
    qemu = station.qemu
    await serve(qemu, station.windows)
    present, nodes = await exports.ids(qemu), await blockdev.names(qemu)
    for disk in disks:
        suid = disk.suid
        if _id(suid, "map") not in present:
            await exports.add(qemu, _id(suid, "map"), station.overlay(disk), f"{suid}.map", depth=True)
        if names.copy_on_read(suid) in nodes and _id(suid, "fill") not in present:
            # The overlay, not the filter: through that what is brought over counts as written by the guest, in the
            # dirty bitmap of the way home.
            await exports.add(qemu, _id(suid, "fill"), station.overlay(disk), f"{suid}.fill")
        await _open_sides(station, disk, present, nodes)


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


async def _open_sides(station: Station, disk: DiskRecord, present: frozenset[str], nodes: frozenset[str]) -> None:
    """`own` and `far`. A raw node of a fixed size is no filter: no question goes through it to the overlay's backing.

    It takes whole sectors only.
    """
    qemu, suid, own, size = station.qemu, disk.suid, names.own(disk.suid), disk.size - disk.size % SECTOR
    if own not in nodes:
        view = {"driver": "raw", "node-name": own, "file": station.overlay(disk), "size": size}
        await blockdev.add(qemu, {**view, "read-only": True})
    if _id(suid, "own") not in present:
        await exports.add(qemu, _id(suid, "own"), own, f"{suid}.own", depth=True)
    if _id(suid, "far") not in present:
        await exports.add(qemu, _id(suid, "far"), _below(station, disk, nodes), f"{suid}.far")


def _below(station: Station, disk: DiskRecord, nodes: frozenset[str]) -> str:
    """The node below the top overlay.

    None of them where all is local and a kill came before that was written down: then what the overlay itself says of
    what it lacks, which is that it reads as zeroes if there is really nothing below.
    """
    suid = disk.suid
    lower = (names.overlay(suid, disk.level - 1),) if disk.level else ()
    known = (*lower, station.remote(disk), names.absent(suid), names.base(suid))
    return next((name for name in known if name in nodes), names.own(suid))


async def close_sides(qemu: Session, suid: str) -> None:
    """Close `own` and `far`, before the overlay gets something else below or above it."""
    for id in {_id(suid, "own"), _id(suid, "far")} & await exports.ids(qemu):
        await exports.delete(qemu, id)
    await blockdev.drop(qemu, names.own(suid))


async def close_fill(qemu: Session, suid: str) -> None:
    """Close the window by which ranges are made local: nothing is kept from now on."""
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
    async with _own(host, socket, suid) as own:
        async with _opened(host, socket, f"{suid}.far", nbd.BASE_ALLOCATION) as far:
            yield own, far


def _own(host: Host, socket: str, suid: str) -> AbstractAsyncContextManager[nbd.Client]:
    return _opened(host, socket, f"{suid}.own", nbd.ALLOCATION_DEPTH)


@asynccontextmanager
async def _opened(host: Host, socket: str, export: str, *contexts: str) -> AsyncIterator[nbd.Client]:
    reader, writer = await open_unix(host, socket)
    async with nbd.open(reader, writer, export, contexts) as client:
        yield client


@asynccontextmanager
async def changes(host: Host, socket: str, suid: str) -> AsyncIterator[nbd.Client]:
    """The window of `open_changes`."""
    async with _opened(host, socket, f"{suid}.changes", nbd.BASE_ALLOCATION) as client:
        yield client


@asynccontextmanager
async def filling(host: Host, socket: str, suid: str) -> AsyncIterator[nbd.Client]:
    """The `fill` window of a device."""
    async with _opened(host, socket, f"{suid}.fill") as client:
        yield client


async def absent(host: Host, socket: str, suid: str) -> list[nbd.Range]:
    """What of a device is not in its overlay, holes too."""
    async with look(host, socket, suid) as whole, _own(host, socket, suid) as own:
        depth = (await own.map())[nbd.ALLOCATION_DEPTH]
        return nbd.absent(depth + (await _tail(whole, own))[nbd.ALLOCATION_DEPTH])


async def residency(host: Host, socket: str, suid: str) -> nbd.Residency:
    """Where each byte of a device is now. What becomes local meanwhile may still count as remote."""
    async with look(host, socket, suid) as whole, sides(host, socket, suid) as (own, far):
        here, there, tail = await own.map(), await far.map(length=own.size), await _tail(whole, own)
        return _whole(here[nbd.ALLOCATION_DEPTH], there[nbd.BASE_ALLOCATION], tail)


def _whole(own: list[nbd.Extent], far: list[nbd.Extent], tail: nbd.Maps) -> nbd.Residency:
    """One map out of that of the overlay, that of the source, and the end that the overlay's does not have."""
    return nbd.residency(own + tail[nbd.ALLOCATION_DEPTH], far + tail[nbd.BASE_ALLOCATION])


async def _tail(whole: nbd.Client, own: nbd.Client) -> nbd.Maps:
    """Less than a sector at the end of a disk of an odd size, which `own` does not show."""
    return await whole.map(offset=own.size) if whole.size > own.size else {context: [] for context in CONTEXTS}


# What a source has does not change while it serves it: its maps, by what `glance` is told of them. So whoever looks
# again and again asks nothing over a link that may be busy.
_far_maps: dict[object, list[nbd.Extent]] = {}
_MOST_EXTENTS, _MOST_MAPS = 1 << 16, 256


async def glance(host: Host, socket: str, suid: str, below: object) -> nbd.Residency:
    """The same in a hurry: for a picture, which need not be of one moment.

    `below` names what is below the overlay, so that it has another name when it is another.
    """
    async with look(host, socket, suid) as whole, sides(host, socket, suid) as (own, far):
        asked = (_stretched(own, nbd.ALLOCATION_DEPTH, own.size, BY_TIME), _far_map(far, own.size, below))
        (here, there), tail = await asyncio.gather(*asked), await _tail(whole, own)
        return _whole(here, there, tail)


async def _far_map(far: nbd.Client, size: int, below: object) -> list[nbd.Extent]:
    known = _far_maps.get(below) or await _stretched(far, nbd.BASE_ALLOCATION, size, BY_PIECES)
    if len(known) < _MOST_EXTENTS and len(_far_maps) < _MOST_MAPS:
        _far_maps[below] = known
    return known


async def _stretched(client: nbd.Client, context: str, size: int, pace: Pace) -> list[nbd.Extent]:
    """The whole map, by several stretches side by side: each piece of a stretch is a round trip."""
    step = max(size // STRETCHES, SHORTEST)
    starts = range(0, size, step - step % SHORTEST)
    asked = [client.map(offset=start, length=min(starts.step, size - start), pace=pace) for start in starts]
    return nbd.merge(extent for part in await asyncio.gather(*asked) for extent in part[context])
