"""The way to the hosts that a guest reads from: whether it stands, and what came over it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from qemu_esd.hosts import service
from qemu_esd.hosts.base import run
from qemu_esd.model.disk import Endpoint, UnixPath, link_of
from qemu_esd.model.record import DiskRecord
from qemu_esd.phases import links
from qemu_esd.phases.station import Station


async def state_of_link(station: Station) -> tuple[str, int | None, int | None]:
    """Whether the way to the source stands: the connections of its disks, or the tunnel that carries them; for how many
    seconds nobody has answered at its other end; and how many bytes came over it."""
    ways = {way.endpoint for disk in station.linked() if _is_read(disk) and (way := link_of(disk.chain))}
    if not ways:
        return "none", None, None
    longest, standing = await asyncio.gather(silence(station), asyncio.gather(*(_stands(station, way) for way in ways)))
    received = [one.received for one in standing if one.received is not None]
    state = "up" if all(one.stands for one in standing) and longest is None else "down"
    return state, longest, sum(received) if received else None


async def silence(station: Station) -> int | None:
    """For how many seconds a link of the guest has been without an answer; None: all have one."""
    asked = (links.down_seconds(station.host, station.paths, one.migration) for one in station.record.upstream)
    return max((seconds for seconds in await asyncio.gather(*asked) if seconds is not None), default=None)


def _is_read(disk: DiskRecord) -> bool:
    return disk.handler is not None and disk.handler.needs_source


@dataclass(frozen=True)
class _Standing:
    stands: bool
    received: int | None


async def _stands(station: Station, way: Endpoint) -> _Standing:
    if isinstance(way, UnixPath):
        # ssh listens here once it stands, and no longer when it has found its peer dead.
        return _Standing(await service.listens(station.host, way.path), None)
    to = ("dst", way.address, "dport", "=", str(way.port))
    told = (await run(station.host, ("ss", "-Htni", "state", "established", *to))).text
    return _Standing(bool(told.strip()), sum(map(int, re.findall(r"\bbytes_received:(\d+)", told))))
