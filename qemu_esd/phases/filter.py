"""The copy-on-read filter under a running disk: put in, taken out. The guest does not notice."""

from __future__ import annotations

from qemu_esd.graph import names
from qemu_esd.graph.handlers import overlays
from qemu_esd.model.record import DiskRecord
from qemu_esd.phases import windows
from qemu_esd.phases.station import Station
from qemu_esd.qmp import blockdev


async def insert(station: Station, disk: DiskRecord) -> None:
    """From now on what is read stays. Already there is fine."""
    qemu, name = station.qemu, names.copy_on_read(disk.suid)
    if name not in await blockdev.names(qemu):
        await blockdev.add(qemu, overlays.copy_on_read(disk.suid, disk.level))
    await blockdev.swap(qemu, station.disk(disk).qdev, name)
    await windows.open_all(qemu, station.sockets.nbd, (disk,))


async def remove(station: Station, disk: DiskRecord) -> None:
    """From now on the disk is on its overlay. Already so is fine."""
    qemu, name = station.qemu, names.copy_on_read(disk.suid)
    if name in await blockdev.names(qemu):
        await windows.close_fill(qemu, disk.suid)
        await blockdev.swap(qemu, station.disk(disk).qdev, names.overlay(disk.suid, disk.level))
        await blockdev.delete(qemu, name)
