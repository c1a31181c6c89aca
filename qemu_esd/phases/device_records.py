"""The record of a device on its hosts, and which of them counts: any controller can go on with any device."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from qemu_esd.errors import HostError
from qemu_esd.hosts import facts, files
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts
from qemu_esd.journal import codec
from qemu_esd.model import device
from qemu_esd.model.device import DeviceRecord
from qemu_esd.model.host import HostPaths


async def all_on(host: Host) -> tuple[DeviceRecord, ...]:
    """The devices that a host knows. Raises RecordError for a record that cannot be read."""
    paths = (await facts.look(host)).paths
    found = await files.read_each(host, f"{paths.state}/device", "device.json")
    return tuple(_read(host, device.record_path(paths, suid), text) for suid, text in found.items())


def _read(host: Host, path: str, text: str | bytes) -> DeviceRecord:
    try:
        return codec.load(text, DeviceRecord)
    except codec.RecordError as error:
        hint = "copy it from another host of the device: it is the same on all of them"
        raise codec.RecordError(f"{path}: {error.what}", host=host.name, hint=hint) from error


async def on(host: Host, paths: HostPaths, suid: str) -> DeviceRecord | None:
    """What one host says of a device."""
    path = device.record_path(paths, suid)
    data = await files.read(host, path)
    return None if data is None else _read(host, path, data)


async def write(host: Host, paths: HostPaths, record: DeviceRecord) -> None:
    """On the disk, and found there after a power cut, when this returns: what follows goes by it."""
    path = device.record_path(paths, record.suid)
    await files.write(host, path, codec.dump(record).encode())
    await files.sync_folder(host, device.state_folder(paths, record.suid))


async def newest(hosts: Hosts, names: Sequence[str], suid: str) -> tuple[DeviceRecord | None, tuple[HostError, ...]]:
    """What counts of what these hosts, and those that they name, say of a device; and who does not answer.

    A change that was broken off is known to some of them: the highest generation is it.
    """
    found: dict[str, DeviceRecord | None] = {}
    silent: list[HostError] = []
    ask = list(dict.fromkeys(names))
    while ask:
        told = await asyncio.gather(*(_ask(hosts, name, suid) for name in ask), return_exceptions=True)
        for name, answer in zip(ask, told, strict=True):
            if isinstance(answer, HostError):
                silent.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            found[name] = answer if isinstance(answer, DeviceRecord) else None
        known = [record for record in found.values() if record]
        ask = [name for record in known for name in record.hosts if name not in found]
        ask = list(dict.fromkeys(ask))
    records = [record for record in found.values() if record]
    return max(records, key=lambda record: record.generation, default=None), tuple(silent)


async def _ask(hosts: Hosts, name: str, suid: str) -> DeviceRecord | None:
    host = await hosts.get(name)
    return await on(host, (await facts.look(host)).paths, suid)
