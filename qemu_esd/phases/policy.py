"""Another read handler under a running disk. Which change makes sense is decided here, by one table of steps."""

from __future__ import annotations

from dataclasses import replace

from qemu_esd.errors import RefusedError
from qemu_esd.graph import names, nodes
from qemu_esd.graph.handlers import overlays
from qemu_esd.model.disk import link_of, top_image
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import DiskRecord
from qemu_esd.phases import filter, mover, windows
from qemu_esd.phases.station import Station, with_disk
from qemu_esd.qmp import blockdev

# Below it, copy-on-read above subclusters aborts QEMU.
COR_OVER_SUBCLUSTERS = (8, 1, 0)


async def change(station: Station, disk: DiskRecord, handler: Handler) -> Station:
    """Let `handler` answer reads of absent data from now on. The guest sees no error.

    Raises RefusedError where the change makes no sense: nothing is absent, or the handler before has lost the source.
    """
    link = link_of(disk.chain)
    if link is None:
        raise RefusedError(
            f"every block of {disk.id} is where the guest runs: no handler is needed", host=station.host.name
        )
    if disk.handler is handler:
        return station
    await _check(station, disk, handler)
    await mover.end_mirror(station.qemu, disk.suid)
    if handler.keeps_reads:
        await _answer_from_source(station, disk)
        await filter.insert(station, disk)
    else:
        await filter.remove(station, disk)
        await (_fail_reads(station, disk) if handler is Handler.MISS else _answer_from_source(station, disk))
    return await station.rewrite(with_disk(station.record, replace(disk, handler=handler)))


async def _check(station: Station, disk: DiskRecord, handler: Handler) -> None:
    name, host = station.record.name, station.host.name
    if top_image(disk.chain) is None:
        raise RefusedError(f"{disk.id} has no local space, so it is always redirected", host=host)
    if not station.record.upstream:
        raise RefusedError(f"{name} has no source any more", host=host, hint=f"qemu-esd status {name}")
    if Handler.MISS in (disk.handler, handler) and not await _has_fine_grain(station, disk, handler):
        raise RefusedError(
            f"{disk.id} cannot change from {disk.handler} to {handler} while it runs on this QEMU",
            host=host,
            hint="choose redirect",
        )


async def _has_fine_grain(station: Station, disk: DiskRecord, handler: Handler) -> bool:
    """miss has subclusters; below 8.1 nothing that keeps reads may sit above them."""
    return not handler.keeps_reads or station.guest.version >= COR_OVER_SUBCLUSTERS


async def _fail_reads(station: Station, disk: DiskRecord) -> None:
    name = names.absent(disk.suid)
    await blockdev.add(station.qemu, nodes.missing(name, disk.size))
    await _rebase(station, disk, name)
    if names.remote(disk.suid) in await blockdev.names(station.qemu):
        await blockdev.delete(station.qemu, names.remote(disk.suid))


async def _answer_from_source(station: Station, disk: DiskRecord) -> None:
    """The overlay's backing is the link. Already so is fine."""
    name, link = names.remote(disk.suid), link_of(disk.chain)
    assert link is not None
    if name in await blockdev.names(station.qemu):
        return
    await blockdev.add(station.qemu, nodes.link(name, link))
    await _rebase(station, disk, name)
    if names.absent(disk.suid) in await blockdev.names(station.qemu):
        await blockdev.delete(station.qemu, names.absent(disk.suid))


async def _rebase(station: Station, disk: DiskRecord, backing: str) -> None:
    """Another backing under the running overlay (its file and everything else stay)."""
    image = top_image(disk.chain)
    assert image is not None
    node = overlays.overlay(disk.suid, image, backing)
    await blockdev.reopen(station.qemu, {**node, "file": names.file(disk.suid)})
    await windows.open_all(station.qemu, station.sockets.nbd, (disk.suid,))
