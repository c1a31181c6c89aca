"""A guest that has been moved, and the nodes inside its QEMU, each to be read through an NBD export of its own.

The guest is idle (it stays in its firmware), so that nobody but the instrument reads. What is measured are the nodes
that the migration itself has made; a node for comparison is put into the same QEMU, and both are read alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from qemu_esd import api
from qemu_esd.graph import nodes
from qemu_esd.model.disk import Link, link_of
from qemu_esd.model.policy import Handler
from qemu_esd.phases import windows
from qemu_esd.phases.station import Station
from qemu_esd.qmp import blockdev, exports
from tests.bench.reads import instrument
from tests.bench.reads.instrument import Reading
from tests.bench.reads.series import Read
from tests.bench.rows import FrontDrive
from tests.bench.stand import Stand
from tests.integration.support.guest import Guest

NAME = "bench"
PLAIN = "bench-plain"


@dataclass(frozen=True)
class Stage:
    """The moved guest where it runs now."""

    stand: Stand
    guest: Guest
    station: Station

    @property
    def top(self) -> str:
        """The node that the guest's disk is on."""
        return self.station.guest.disks[0].node

    @property
    def link(self) -> Link:
        """How the disk reads what is not local."""
        link = link_of(self.station.record.disks[0].chain)
        assert link is not None, "the disk has no link"
        return link

    def stored(self) -> int:
        """Bytes that the overlay takes on the target's disk."""
        return self.guest.member(self.guest.drives[0]).stat().st_blocks * 512

    async def add_plain(self, node: dict[str, Any]) -> str:
        """Put a node for comparison into the guest's QEMU; returns its name."""
        await blockdev.add(self.station.qemu, {**node, "node-name": PLAIN})
        return PLAIN

    async def add_plain_link(self) -> str:
        """A second NBD client of the same export, with the same credentials."""
        return await self.add_plain(nodes.link(PLAIN, self.link))

    async def show(self, *shown: str) -> None:
        """Export these nodes under their names."""
        await windows.serve(self.station.qemu, self.station.sockets.nbd)
        for node in shown:
            await exports.add(self.station.qemu, f"show-{node}", node, node)

    async def hide(self, *shown: str) -> None:
        for node in shown:
            await exports.delete(self.station.qemu, f"show-{node}")

    async def read(self, node: str, reads: Sequence[Read], depth: int) -> Reading:
        return await instrument.read(self.guest.machine.path(self.station.sockets.nbd), node, reads, depth)


async def move(stand: Stand, handler: Handler, size: int, **words: Any) -> Guest:
    """An idle guest with one disk full of data, moved from one host to the other."""
    stand.sweep()
    guest = Guest(NAME, stand.a, [FrontDrive("vda", seed=7, size=size, data=size)])
    await guest.start(None)
    await guest.migrate(stand.b, handler, until_settled=False, report=lambda _: None, **words)
    return guest


@asynccontextmanager
async def opened(stand: Stand, guest: Guest) -> AsyncIterator[Stage]:
    """The stage, for as long as the context lasts."""
    async with api.open_guest(guest.name, guest.machine.name) as station:
        yield Stage(stand, guest, station)
