"""What one command has open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from qemu_esd.hosts.connect import Hosts
from qemu_esd.journal import claims
from qemu_esd.phases import look
from qemu_esd.phases.context import Monitors
from qemu_esd.phases.station import Station, open_station


@dataclass(frozen=True)
class Desk:
    """Open hosts and monitors of one command, and the ports that it has chosen."""

    hosts: Hosts
    monitors: Monitors
    claims: claims.Claims


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        hosts = Hosts(stack)
        yield Desk(hosts, Monitors(hosts, stack), stack.enter_context(claims.opened()))


@asynccontextmanager
async def open_guest(vm: str, host: str | None = None) -> AsyncIterator[Station]:
    """The running guest `vm`, where this controller knows it to be, or on `host`."""
    async with open_desk() as desk:
        name = host or await look.find_host(desk.hosts, vm)
        yield await open_station(desk.hosts, desk.monitors, name, vm)
