"""A device as it is now on each of its hosts. Nothing is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from qemu_esd import nbd
from qemu_esd.errors import EsdError, HostError
from qemu_esd.model import device
from qemu_esd.model.device import UNITS, DeviceRecord, Seat
from qemu_esd.phases import device_clients, device_records, device_room, device_units, device_windows
from qemu_esd.phases.device_clients import Client
from qemu_esd.phases.device_daemons import Crew
from qemu_esd.phases.device_room import Waiting

MAP_SECONDS = 10.0


@dataclass(frozen=True)
class Place:
    """A device on one of its hosts. `role`: authority, behind, forwards; `units`: of each part running, ended, gone or
    unknown; `missing`: those that should run and do not;
    `waiting`: guests that stand still until there is room."""

    host: str
    role: str
    units: Mapping[str, str]
    clients: tuple[Client, ...] = ()
    knows: int | None = None
    missing: tuple[str, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class View:
    """A device as it is now. `residency`: where its bytes are, as long as not all of them are with the authority; None
    also where that was not to be asked."""

    record: DeviceRecord
    places: tuple[Place, ...]
    residency: nbd.Residency | None = None

    @property
    def remote(self) -> int | None:
        """Bytes that the authority still reads from the host before it; None: nobody knows."""
        if self.record.is_whole:
            return 0
        return self.residency.remote_bytes if self.residency else None

    @property
    def is_broken_off(self) -> bool:
        """Whether its hosts do not all know the same, or making or moving it has not come to its end."""
        knows = {place.knows for place in self.places if place.error is None}
        return self.record.is_being_made or self.record.move is not None or knows != {self.record.generation}


async def look(crew: Crew, record: DeviceRecord) -> View:
    places = await asyncio.gather(*(_place(crew, record, seat) for seat in record.seats))
    return View(record, tuple(places), await _residency(crew, record))


async def _place(crew: Crew, record: DeviceRecord, seat: Seat) -> Place:
    role = "authority" if seat.host == record.authority else "forwards"
    if record.kept_on(seat.host):
        role = "behind"
    try:
        host = await crew.hosts.get(seat.host)
        known = await device_records.on(host, seat.paths, record.suid)
        told = await asyncio.gather(*(device_units.state(host, seat, record.suid, part) for part in UNITS))
        socket = device.socket(seat.paths, record.suid)
        users = await device_clients.clients(host, socket)
        waiting = await device_room.waiting(host, socket) if users else ()
    except HostError as error:
        return Place(seat.host, role, dict.fromkeys(UNITS, "unknown"), error=error.what)
    units = dict(zip(UNITS, told, strict=True))
    missing = tuple(part for part in device_units.wanted(record, seat) if units[part] != "running")
    return Place(seat.host, role, units, users, known.generation if known else None, missing, waiting)


async def _residency(crew: Crew, record: DeviceRecord) -> nbd.Residency | None:
    if record.is_whole:
        return None
    try:
        # Of a host behind that is silent nothing is heard for longer.
        async with asyncio.timeout(MAP_SECONDS):
            return await device_windows.residency(await crew.hosts.get(record.authority), record)
    except (EsdError, OSError):
        return None
