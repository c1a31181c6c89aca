"""Another overlay on top of a running disk, for a handler that needs other clusters than the one before.

miss needs subclusters as fine as the guest's block: a write into a coarse cluster reads what is absent, and fails.
What keeps reads needs none: copy-on-read above subclusters aborts QEMU below 8.1.
"""

from __future__ import annotations

from dataclasses import replace

from qemu_esd.graph import names
from qemu_esd.graph.handlers import HANDLERS, overlays
from qemu_esd.hosts import qemu_img
from qemu_esd.model.disk import Image, top_image
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import DiskRecord
from qemu_esd.phases.station import Station, with_disk
from qemu_esd.qmp import blockdev

# Below it, copy-on-read above subclusters aborts QEMU.
COR_OVER_SUBCLUSTERS = (8, 1, 0)


async def fit(station: Station, disk: DiskRecord, handler: Handler) -> tuple[Station, DiskRecord]:
    """Make the top overlay one that `handler` can work with. Fits already is fine."""
    fine = await blockdev.has_subclusters(station.qemu, names.overlay(disk.suid, disk.level))
    if handler is Handler.MISS and not fine:
        return await _stack(station, disk, handler)
    if handler.keeps_reads and fine and station.guest.version < COR_OVER_SUBCLUSTERS:
        return await _stack(station, disk, handler)
    return station, disk


async def _stack(station: Station, disk: DiskRecord, handler: Handler) -> tuple[Station, DiskRecord]:
    """Written down before it is used: after a kill in between, the record names a file that nobody reads from."""
    old, level = top_image(disk.chain), disk.level + 1
    assert old is not None
    fresh = Image(f"{old.path}.{level}", "qcow2", old.direct)
    options = HANDLERS[handler].overlay_options(station.disk(disk).logical_block)
    await qemu_img.create_overlay(station.host, fresh.path, disk.size, options)
    await blockdev.add(station.qemu, overlays.overlay(disk.suid, fresh, None, level))
    await blockdev.snapshot(station.qemu, names.overlay(disk.suid, disk.level), names.overlay(disk.suid, level))
    grown = replace(disk, chain=(fresh, *disk.chain))
    return await station.rewrite(with_disk(station.record, grown)), grown
