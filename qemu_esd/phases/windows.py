"""Windows into a target QEMU: local NBD exports by which maps are read and ranges are made local.

They are on a unix socket in a 0700 folder, read-only, and carry questions and answers but no disk data.
Two per disk: `map` shows the overlay with its allocation depth, `fill` goes through the copy-on-read filter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from qemu_esd import nbd
from qemu_esd.errors import QemuError
from qemu_esd.graph import names
from qemu_esd.hosts.base import Host, open_unix
from qemu_esd.model.record import DiskRecord
from qemu_esd.qmp import blockdev, exports
from qemu_esd.qmp.session import Session

BUSY = "already"


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
    reader, writer = await open_unix(host, socket)
    contexts = (nbd.ALLOCATION_DEPTH, nbd.BASE_ALLOCATION)
    async with nbd.open(reader, writer, f"{suid}.map", contexts) as client:
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
    reader, writer = await open_unix(host, socket)
    async with nbd.open(reader, writer, f"{suid}.fill") as client:
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
