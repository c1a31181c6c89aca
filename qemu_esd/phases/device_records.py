"""The record of a device on its hosts, and which of them counts: any controller can go on with any device."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from qemu_esd.errors import HostError, RefusedError
from qemu_esd.hosts import facts, files
from qemu_esd.hosts.base import Host, shell
from qemu_esd.hosts.connect import Hosts
from qemu_esd.journal import codec
from qemu_esd.model import device
from qemu_esd.model.device import DeviceRecord
from qemu_esd.model.host import HostPaths

# What says what there is goes last, and the folder with it, unless a new device has just come into it.
_REMOVE = r"""
cd -- "$1" 2>/dev/null || exit 0
find . -mindepth 1 ! -name 'device.json*' -delete
rm -f -- device.json device.json.new
rmdir --ignore-fail-on-non-empty -- "$1"
"""


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


async def write_first(host: Host, paths: HostPaths, record: DeviceRecord) -> bool:
    """False: the host has a device of that SUID, and was not changed."""
    path = device.record_path(paths, record.suid)
    return await files.write_first(host, path, codec.dump(record).encode())


async def remove(host: Host, paths: HostPaths, suid: str) -> None:
    """The record and the key. Gone already is fine."""
    await shell(host, _REMOVE, device.state_folder(paths, suid))


async def is_of_another(host: Host, paths: HostPaths, record: DeviceRecord) -> bool:
    """Whether the host has another device of that SUID."""
    there = await on(host, paths, record.suid)
    return there is not None and not there.is_of(record)


async def newest(hosts: Hosts, names: Sequence[str], suid: str) -> tuple[DeviceRecord | None, tuple[HostError, ...]]:
    """What counts of what these hosts, and those that they name, say of a device; and who does not answer.

    A change that was broken off is known to some of them: the highest generation is it. Raises RefusedError where
    `names` know more than one device of that SUID; another one, on a host that is only named by them, is passed over.
    """
    found: dict[str, DeviceRecord] = {}
    silent: list[HostError] = []
    known: list[DeviceRecord] = []
    ask, asked = list(dict.fromkeys(names)), set[str]()
    while ask:
        told = await asyncio.gather(*(_ask(hosts, name, suid) for name in ask), return_exceptions=True)
        for name, answer in zip(ask, told, strict=True):
            if isinstance(answer, HostError):
                silent.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            elif answer is not None:
                found[name] = answer
        known, asked = _of_one(suid, found, names), asked | {*ask}
        ask = list(dict.fromkeys(name for record in known for name in record.hosts if name not in asked))
    return max(known, key=lambda record: record.generation, default=None), tuple(silent)


def _of_one(suid: str, found: dict[str, DeviceRecord], names: Sequence[str]) -> list[DeviceRecord]:
    """Those records that are of the device which `names` know. Raises RefusedError if that is more than one."""
    known = [(name, found[name]) for name in names if name in found]
    for name, record in known[1:]:
        if not record.is_of(known[0][1]):
            what = f"there are two devices {suid}: on {known[0][0]}, and on {name}"
            raise RefusedError(what, hint=f"say which one: --host {known[0][0]}, or --host {name}")
    return [record for record in found.values() if record.is_of(known[0][1])]


async def _ask(hosts: Hosts, name: str, suid: str) -> DeviceRecord | None:
    host = await hosts.get(name)
    return await on(host, (await facts.look(host)).paths, suid)
