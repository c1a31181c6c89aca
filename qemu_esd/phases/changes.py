"""What a guest has changed on a host since it came there: a dirty bitmap in each overlay, named by the migration.

It is there before the guest's first instruction, and lives in the overlay: where that is, it says how far it differs
from what was left behind. One that is missing (a killed QEMU, another overlay on top) means that nobody knows.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from qemu_esd import nbd
from qemu_esd.errors import RefusedError
from qemu_esd.graph import names, nodes
from qemu_esd.graph.handlers import overlays
from qemu_esd.hosts import facts, files
from qemu_esd.hosts.base import Host
from qemu_esd.log import logger
from qemu_esd.model.disk import Disk, Link, link_of, top_image
from qemu_esd.model.plan import Plan
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import DiskRecord
from qemu_esd.phases import places, windows
from qemu_esd.phases.station import Station
from qemu_esd.qmp import bitmaps, blockdev, exports
from qemu_esd.qmp.session import Session

# Beside the bits: QEMU's directory and tables of them.
ROOM = 16 << 20


async def note(target: Session, plan: Plan) -> None:
    """From the first write of the guest on. A kill before it has come: the overlay goes, and this with it.

    Not for `miss`: what is not read from the source is not to be had from its old image either.
    """
    for disk in plan.disks:
        if disk.member is not None and disk.handler is not Handler.MISS:
            name = names.overlay(disk.disk.suid)
            await bitmaps.add(target, name, names.changes(plan.id), overlays.CLUSTER)


async def keep_room(qemu: Session, host: Host, disks: Iterable[Disk]) -> None:
    """Forget them where there may be no room to keep them: QEMU would not give the images up, nor the guest move."""
    for disk in disks:
        top, held = top_image(disk.chain), await _ours(qemu, disk.overlay)
        if top is None or not held:
            continue
        if await files.free_bytes(host, posixpath.dirname(top.path)) < disk.size // overlays.CLUSTER // 8 + ROOM:
            logger.warning("there is no room to note what has changed: the way home moves all of it", disk=disk.id)
            for name in held:
                await bitmaps.remove(qemu, disk.overlay, name)


async def forget(station: Station) -> None:
    """Nobody has anything any more from which the guest's disks differ. Forgotten already is fine."""
    for disk in station.guest.disks:
        for name in await _ours(station.qemu, disk.overlay):
            await bitmaps.remove(station.qemu, disk.overlay, name)


async def _ours(qemu: Session, node: str) -> list[str]:
    return sorted(name for name in await bitmaps.names(qemu, node) if names.is_ours(name))


async def since(station: Station, disk: DiskRecord, migration: str) -> list[nbd.Range]:
    """What was written to `disk` on the host before, since `migration` brought the guest there.

    Its path handler holds the overlay, in which nobody writes any more. The answer comes over the link. Raises
    RefusedError where nobody knows, and other errors where nobody can tell.
    """
    upstream, link = station.record.upstream[0], link_of(disk.chain)
    assert link is not None
    there = await station.hosts.get(upstream.host)
    monitor = places.handler_socket((await facts.look(there)).paths, upstream.migration)
    handler = await station.monitors.get(upstream.host, monitor, "the path handler")
    held, name = names.held(disk.suid), names.changes(migration)
    # Only of the image on top: QEMU would find one further down, too, which knows nothing of what came above it.
    if name not in await bitmaps.names(handler, held):
        raise RefusedError("nobody has noted what was written there since", host=there.name)
    export = f"{link.export}.changes"
    if names.changed(disk.suid) not in await exports.ids(handler):
        await exports.add_with_bitmap(handler, names.changed(disk.suid), held, export, name)
    changed = await _read(station, disk, Link(link.endpoint, export), name)
    await exports.delete(handler, names.changed(disk.suid))
    return changed


async def _read(station: Station, disk: DiskRecord, link: Link, bitmap: str) -> list[nbd.Range]:
    """Through an NBD client of our QEMU, which has the key, and tells what is dirty as what is not data."""
    qemu, node = station.qemu, names.changed(disk.suid)
    await _drop(station, node)
    await blockdev.add(qemu, nodes.bitmap_of(node, link, bitmap))
    await windows.open_changes(qemu, station.windows, disk)
    async with windows.changes(station.host, station.windows, disk.suid) as client:
        # Of what nothing can be told would count as not written.
        extents = (await client.map(max_untold=0))[nbd.BASE_ALLOCATION]
    await _drop(station, node)
    return [nbd.Range(extent.offset, extent.length) for extent in extents if extent.flags & nbd.STATE_HOLE]


async def _drop(station: Station, node: str) -> None:
    """The window and the node, which a kill may have left."""
    if node in await exports.ids(station.qemu):
        await exports.delete(station.qemu, node)
    await blockdev.drop(station.qemu, node)
