"""The record of a device on its hosts, and which of them counts: any controller can go on with any device."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from qemu_esd.errors import EsdError, HostError
from qemu_esd.hosts import facts, files
from qemu_esd.hosts.base import Host, shell
from qemu_esd.hosts.connect import Hosts
from qemu_esd.journal import codec
from qemu_esd.model import device
from qemu_esd.model.device import DeviceRecord
from qemu_esd.model.host import HostPaths

_ALL = 'cd -- "$1" 2>/dev/null || exit 0; for f in */device.json; do if [ -e "$f" ]; then cat -- "$f"; echo; fi; done'


async def all_on(host: Host) -> tuple[DeviceRecord, ...]:
    """The devices that a host knows."""
    paths = (await facts.look(host)).paths
    lines = (await shell(host, _ALL, f"{paths.state}/device")).text.splitlines()
    return tuple(codec.load(line, DeviceRecord) for line in lines if line)


async def on(host: Host, paths: HostPaths, suid: str) -> DeviceRecord | None:
    """What one host says of a device."""
    data = await files.read(host, device.record_path(paths, suid))
    return None if data is None else codec.load(data, DeviceRecord)


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
    try:
        return await on(host, (await facts.look(host)).paths, suid)
    except codec.RecordError as error:
        raise EsdError(error.what, host=name, hint="its other hosts have a copy of it") from error
