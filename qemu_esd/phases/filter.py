"""The copy-on-read filter of a running disk: put in, taken out. The guest does not notice.

Under a bare guest it is below the guest's device. Over a domain's overlay it stands beside the device: what we read
through it stays, and libvirt's own nodes are as it made them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from qemu_esd.graph import names
from qemu_esd.graph.handlers import overlays
from qemu_esd.model.record import DiskRecord
from qemu_esd.model.vm import Kind
from qemu_esd.phases import windows
from qemu_esd.phases.station import Station
from qemu_esd.qmp import blockdev


async def insert(station: Station, disk: DiskRecord) -> None:
    """From now on what is read through it stays. Already there is fine."""
    qemu, name = station.qemu, names.copy_on_read(disk.suid)
    if name not in await blockdev.names(qemu):
        await blockdev.add(qemu, {**overlays.copy_on_read(disk.suid), "file": station.overlay(disk)})
    await _UNDER_DEVICE[station.guest.kind](station, disk, name)
    await windows.open_all(station, (disk,))


async def remove(station: Station, disk: DiskRecord) -> None:
    """From now on the disk is on its overlay. Already so is fine."""
    qemu, name = station.qemu, names.copy_on_read(disk.suid)
    if name in await blockdev.names(qemu):
        await windows.close_fill(qemu, disk.suid)
        await _UNDER_DEVICE[station.guest.kind](station, disk, station.overlay(disk))
        await blockdev.delete(qemu, name)


async def _put_under(station: Station, disk: DiskRecord, node: str) -> None:
    await blockdev.swap(station.qemu, station.disk(disk).qdev, node)


async def _leave_device(station: Station, disk: DiskRecord, node: str) -> None:
    """The device is libvirt's."""


_UNDER_DEVICE: dict[Kind, Callable[[Station, DiskRecord, str], Awaitable[None]]] = {
    Kind.BARE: _put_under,
    Kind.DOMAIN: _leave_device,
}
