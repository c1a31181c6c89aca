"""Remembers how a migration goes while it goes; `model/trail.py` says what. Nothing of it may break a migration off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from qemu_esd import __version__, migration
from qemu_esd.errors import EsdError
from qemu_esd.journal import trail
from qemu_esd.log import logger
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Measured, State
from qemu_esd.model.trail import Mark, Remark, Snapshot, Versions
from qemu_esd.nbd.cells import cell_bytes, cells
from qemu_esd.phases.context import Reporter
from qemu_esd.phases.station import Station
from qemu_esd.view import DiskMap, disk_maps

CELLS = 512
# So long a picture of what was where when the guest arrived may take, at most.
ARRIVAL_SECONDS = 10.0


class Recorder:
    """Of one migration; without an `id` nothing is kept, because its journal is elsewhere. What comes through `hearing`
    goes on to whoever listens."""

    def __init__(self, id: str | None) -> None:
        self._id = id
        self._pace = trail.Pace()
        self._latest: dict[str, Progress] = {}

    def hearing(self, report: Reporter) -> Reporter:
        def hear(event: State | Measured | Progress) -> None:
            if isinstance(event, Progress):
                self._sample(event)
            else:
                self._last_samples()
            report(event)

        return hear

    def _sample(self, now: Progress) -> None:
        if self._pace.wants(now.what, time.monotonic()):
            self._latest.pop(now.what, None)
            self._keep(now)
        else:
            self._latest[now.what] = now

    def _last_samples(self) -> None:
        """What comes to its end is known to the end."""
        for sample in self._latest.values():
            self._keep(sample)
        self._latest.clear()

    def remark(self, level: str, text: str) -> None:
        self._keep(Remark(level, text))

    def versions(self, source: str, source_version: tuple[int, ...], station: Station) -> None:
        qemu = {source: _dotted(source_version), station.host.name: _dotted(station.guest.version)}
        self._keep(Versions(__version__, qemu))

    async def finish(self, station: Station, enter: Callable[[State], None], report: Reporter) -> Station:
        """What the policy moves by itself. Beside it, what was where when the guest arrived is remembered."""
        looking = asyncio.ensure_future(self._at_the_arrival(station))
        try:
            return await migration.finish(station, enter, report)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _at_the_arrival(self, station: Station) -> None:
        async with asyncio.timeout(ARRIVAL_SECONDS):
            self._snapshots("arrived", await disk_maps(station, station.guest.disks))

    async def at_the_end(self, station: Station) -> tuple[DiskMap, ...]:
        """What is where at the end of a command."""
        maps = await disk_maps(station, station.guest.disks)
        self._snapshots("end", maps)
        return maps

    def _keep(self, mark: Mark) -> None:
        if self._id is not None:
            trail.append(self._id, mark)

    def _snapshots(self, moment: str, maps: Iterable[DiskMap]) -> None:
        for each in maps:
            self._keep(snapshot(moment, each))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


@contextmanager
def remembering(id: str | None) -> Iterator[Recorder]:
    """While this is open, warnings are remembered too, and the error that it ends with."""
    recorder, former = Recorder(id), logger.heard
    logger.heard = lambda text: recorder.remark("warning", text)
    try:
        yield recorder
    except EsdError as error:
        # Without its hint: a command that was right then may be wrong when it is read.
        recorder.remark("error", str(error))
        raise
    finally:
        logger.heard = former
        recorder._last_samples()


def snapshot(moment: str, disk: DiskMap) -> Snapshot:
    """Where the data of a disk is, in a few hundred letters."""
    view, letters, cell = disk.view, "", 0
    if disk.residency is not None:
        cell = cell_bytes(view.virtual_bytes, CELLS)
        letters = cells(disk.residency, view.virtual_bytes, cell)
    return Snapshot(moment, view.disk, view.virtual_bytes, view.local_bytes, view.remote_bytes, letters, cell)
