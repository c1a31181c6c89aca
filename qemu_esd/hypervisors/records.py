"""The records that we leave on hosts, so that a controller which has never seen a guest knows what it is."""

from __future__ import annotations

from collections.abc import Sequence

from qemu_esd.hosts import files
from qemu_esd.hosts.base import Host
from qemu_esd.journal import codec
from qemu_esd.model.host import HostPaths
from qemu_esd.model.record import GuestRecord, LinkRecord


async def guest(host: Host, paths: HostPaths, vm: str) -> GuestRecord | None:
    """The guest's record on this host, if it is or was here."""
    data = await files.read(host, paths.guest_record(vm))
    return None if data is None else read_guest(data)


async def guests(host: Host, paths: HostPaths, vms: Sequence[str]) -> dict[str, bytes]:
    """The records of those of the guests `vms` that this host has one of, to be read with `read_guest`."""
    found = await files.read_all(host, [paths.guest_record(vm) for vm in vms])
    return {vm: data for vm in vms if (data := found.get(paths.guest_record(vm))) is not None}


def read_guest(data: bytes) -> GuestRecord:
    """Raises RecordError."""
    return codec.load(data, GuestRecord)


async def write_guest(host: Host, paths: HostPaths, record: GuestRecord) -> None:
    await files.write(host, paths.guest_record(record.name), codec.dump(record).encode())


async def former(host: Host, paths: HostPaths, migration: str) -> GuestRecord | None:
    """The guest's record on this host from before that migration took it away."""
    data = await files.read(host, _former(paths, migration))
    return None if data is None else codec.load(data, GuestRecord)


async def write_former(host: Host, paths: HostPaths, migration: str, record: GuestRecord) -> None:
    await files.write(host, _former(paths, migration), codec.dump(record).encode())


def _former(paths: HostPaths, migration: str) -> str:
    return f"{paths.link_state(migration)}/guest.json"


async def link(host: Host, paths: HostPaths, migration: str) -> LinkRecord | None:
    """The source's end of a migration, if it is still there."""
    data = await files.read(host, f"{paths.link_state(migration)}/link.json")
    return None if data is None else codec.load(data, LinkRecord)


async def links(host: Host, paths: HostPaths) -> tuple[LinkRecord, ...]:
    """The migrations whose source's end is on this host."""
    found = await files.read_each(host, f"{paths.state}/link", "link.json")
    return tuple(codec.load(data, LinkRecord) for data in found.values())


async def write_link(host: Host, paths: HostPaths, record: LinkRecord) -> None:
    await files.write(host, f"{paths.link_state(record.migration)}/link.json", codec.dump(record).encode())
