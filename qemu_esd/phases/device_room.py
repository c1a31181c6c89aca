"""Guests that stand still because there is no room for what they write to a device, or read of it and keep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from qemu_esd.graph import device_guests
from qemu_esd.hosts.base import Host, run


@dataclass(frozen=True)
class Waiting:
    """A guest that waits for room: its name, and whether it is a domain of libvirt."""

    name: str
    is_domain: bool


async def waiting(host: Host, socket: str) -> tuple[Waiting, ...]:
    """Those of a host, by what each QEMU says of its disk on the device."""
    done = await run(host, ("perl", "-e", device_guests.TELL, socket))
    return tuple(found(done.text, socket))


def found(told: str, socket: str) -> Iterator[Waiting]:
    """Of what a host has told. An answer that is none is passed over: a guest may end meanwhile."""
    words = told.split("\0")
    for kind, name, disks in zip(words[::3], words[1::3], words[2::3], strict=False):
        if any(_is_full(disk, socket) for disk in _disks(disks)):
            yield Waiting(name, kind == "domain")


def _disks(told: str) -> list[dict[str, object]]:
    try:
        return list(json.loads(told)["return"])
    except (ValueError, KeyError):
        return []


def _is_full(disk: dict[str, object], socket: str) -> bool:
    return disk.get("io-status") == "nospace" and socket in json.dumps(disk.get("inserted"))
