"""Another overlay on top of a running disk, for a handler that needs other clusters than the one before.

miss needs subclusters as fine as the guest's block: a write into a coarse cluster reads what is absent, and fails.
What keeps reads needs none: copy-on-read above subclusters aborts QEMU below 8.1.
"""

from __future__ import annotations

from dataclasses import replace

from qemu_esd.graph import names
from qemu_esd.graph.handlers import HANDLERS, overlays
from qemu_esd.hosts import qemu_img
from qemu_esd.hypervisors import records
from qemu_esd.hypervisors.versions import mended
from qemu_esd.model.disk import Image, top_image
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import DiskRecord
from qemu_esd.phases.station import Station, with_disk
from qemu_esd.qmp import blockdev


async def fit(station: Station, disk: DiskRecord, handler: Handler) -> tuple[Station, DiskRecord]:
    """Make the top overlay one that `handler` can work with. Fits already is fine."""
    fine = await blockdev.has_subclusters(station.qemu, names.overlay(disk.suid, disk.level))
    if handler is Handler.MISS and not fine:
        return await _stack(station, disk, handler)
    if handler.keeps_reads and fine and not mended(station.guest.version).subclusters:
        return await _stack(station, disk, handler)
    return station, disk


async def _stack(station: Station, disk: DiskRecord, handler: Handler) -> tuple[Station, DiskRecord]:
    """Written down before it is used. A kill in between: the record names an empty file, and `complete` puts it in."""
    old, level = top_image(disk.chain), disk.level + 1
    assert old is not None
    fresh = Image(f"{old.path}.{level}", "qcow2", old.direct)
    options = HANDLERS[handler].overlay_options(station.disk(disk).logical_block)
    await qemu_img.create_overlay(station.host, fresh.path, disk.size, options)
    grown = replace(disk, chain=(fresh, *disk.chain))
    await records.write_guest(station.host, station.paths, with_disk(station.record, grown))
    await complete(station, grown)
    return await station.rewrite(with_disk(station.record, grown)), grown


async def complete(station: Station, disk: DiskRecord) -> None:
    """The top overlay that the record names is the one that the guest writes to. Already so is fine."""
    top, name = top_image(disk.chain), names.overlay(disk.suid, disk.level)
    if top is None or disk.level == 0:
        return
    present = await blockdev.names(station.qemu)
    if name not in present:
        await blockdev.add(station.qemu, overlays.overlay(disk.suid, top, None, disk.level))
    below = names.overlay(disk.suid, disk.level - 1)
    if not await blockdev.has_backing(station.qemu, name):
        await blockdev.snapshot(station.qemu, below, name)
