"""Another read handler under a running disk. The guest sees no error while it changes."""

from __future__ import annotations

import shlex
from dataclasses import replace

from qemu_esd.errors import RefusedError
from qemu_esd.graph import names, nodes
from qemu_esd.graph.handlers import overlays
from qemu_esd.model.disk import images, link_of
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import DiskRecord
from qemu_esd.model.vm import Kind
from qemu_esd.phases import filter, layers, mover, windows
from qemu_esd.phases.station import Station, with_disk
from qemu_esd.qmp import blockdev


async def change(station: Station, disk: DiskRecord, handler: Handler) -> Station:
    """Let `handler` answer reads of absent data from now on.

    Raises RefusedError where that makes no sense: nothing is absent, there is no local space, or no source any more.
    """
    _check(station, disk, handler)
    await layers.complete(station, disk)
    if disk.handler is handler:
        return station
    await mover.end_mirror(station.qemu, disk.suid)
    await windows.close_sides(station.qemu, disk.suid)
    return await _CHANGE[station.guest.kind](station, disk, handler)


async def _change_domain(station: Station, disk: DiskRecord, handler: Handler) -> Station:
    """Nothing below the device changes: a background move has a filter of its own, beside it."""
    await filter.remove(station, disk)
    await windows.open_all(station, (disk,))
    return await station.rewrite(with_disk(station.record, replace(disk, handler=handler)))


async def _change_bare(station: Station, disk: DiskRecord, handler: Handler) -> Station:
    if not handler.keeps_reads:
        await filter.remove(station, disk)
    # Never a coarse overlay above what fails reads: a write of the guest into a part of a cluster would fail too.
    if handler is Handler.MISS:
        station, disk = await layers.fit(station, disk, handler)
        await _fail_reads(station, disk)
    else:
        await _answer_from_source(station, disk)
        station, disk = await layers.fit(station, disk, handler)
    if handler.keeps_reads:
        await filter.insert(station, disk)
    await windows.open_all(station, (disk,))
    return await station.rewrite(with_disk(station.record, replace(disk, handler=handler)))


_CHANGE = {Kind.BARE: _change_bare, Kind.DOMAIN: _change_domain}


def _check(station: Station, disk: DiskRecord, handler: Handler) -> None:
    host, name = station.host.name, station.record.name
    if link_of(disk.chain) is None:
        what = f"the link of {disk.id} to its source is cut" if disk.handler else f"every block of {disk.id} is here"
        raise RefusedError(
            f"{what}: no other handler can answer", host=host, hint=f"qemu-esd status {shlex.quote(name)}"
        )
    if not images(disk.chain):
        hint = f"migrate {name} on to a host with space"
        raise RefusedError(f"{disk.id} has no local space, so it stays redirected", host=host, hint=hint)
    if station.is_domain:
        _check_domain(station, disk, handler)
    if handler is Handler.MISS and station.disk(disk).read_errors == "stop":
        # The guest would be paused at its first miss: what a device does on errors is fixed when it is made.
        hint = f"migrate it on with --disk-policy {disk.id}=miss"
        raise RefusedError(f"{disk.id} stops the guest when a read fails, so no read may miss", host=host, hint=hint)


def _check_domain(station: Station, disk: DiskRecord, handler: Handler) -> None:
    """Whether reads are kept, libvirt is told when a disk is made (`copy_on_read`); it has no word to change it."""
    now = station.disk(disk)
    keeps = now.node != now.overlay
    if handler is Handler.BACKGROUND or (handler is not Handler.MISS and handler.keeps_reads == keeps):
        return
    what = f"libvirt cannot be told to make {disk.id} {handler} while {station.record.name} runs"
    raise RefusedError(what, host=station.host.name, hint="background is what any disk of a domain can be changed to")


async def _fail_reads(station: Station, disk: DiskRecord) -> None:
    name = names.absent(disk.suid)
    if name not in await blockdev.names(station.qemu):
        await blockdev.add(station.qemu, nodes.missing(name, disk.size))
    await _rebase(station, disk, name)
    await blockdev.drop(station.qemu, names.remote(disk.suid))


async def _answer_from_source(station: Station, disk: DiskRecord) -> None:
    """The overlay's backing is the link. Already so is fine: what fails reads goes last."""
    name, absent, link = names.remote(disk.suid), names.absent(disk.suid), link_of(disk.chain)
    assert link is not None
    present = await blockdev.names(station.qemu)
    if name not in present:
        await blockdev.add(station.qemu, nodes.link(name, link))
    if name not in present or absent in present:
        await _rebase(station, disk, name)
        await blockdev.drop(station.qemu, absent)


async def _rebase(station: Station, disk: DiskRecord, backing: str) -> None:
    """Another backing under the lowest overlay, running; its file and everything else stay.

    QEMU makes an overlay read-only when another is put above it, and a reopen must say the same.
    """
    lowest = images(disk.chain)[-1]
    node = overlays.overlay(disk.suid, lowest, backing)
    options = {**node, "file": names.file(disk.suid), "read-only": disk.level > 0}
    await blockdev.reopen(station.qemu, options)
