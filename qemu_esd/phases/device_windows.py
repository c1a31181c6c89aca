"""Windows into the path handler that has the authority of a device: what is here is seen by them, and brought here.

They are exports on its local socket, read-only, as those of a guest's QEMU are (windows.py). It has them as long as the
device reads from another host.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qemu_esd import nbd
from qemu_esd.hosts.base import Host, open_unix
from qemu_esd.model import device
from qemu_esd.model.device import DeviceRecord


@asynccontextmanager
async def look(host: Host, record: DeviceRecord) -> AsyncIterator[nbd.Client]:
    """The overlay with what is below it."""
    async with _opened(host, record, "map", nbd.ALLOCATION_DEPTH, nbd.BASE_ALLOCATION) as client:
        yield client


@asynccontextmanager
async def filling(host: Host, record: DeviceRecord) -> AsyncIterator[nbd.Client]:
    """What is read through it stays."""
    async with _opened(host, record, "fill") as client:
        yield client


async def residency(host: Host, record: DeviceRecord) -> nbd.Residency:
    """Where each byte of a device is now."""
    async with look(host, record) as client:
        maps = await client.map()
        return nbd.residency(maps[nbd.ALLOCATION_DEPTH], maps[nbd.BASE_ALLOCATION])


@asynccontextmanager
async def _opened(host: Host, record: DeviceRecord, window: str, *contexts: str) -> AsyncIterator[nbd.Client]:
    socket = device.socket(record.seat(record.authority).paths, record.suid)
    reader, writer = await open_unix(host, socket)
    async with nbd.open(reader, writer, f"{record.suid}.{window}", contexts) as client:
        yield client
