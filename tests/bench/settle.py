"""The benchmark `settle`: how fast a whole disk comes to the target while the guest runs there.

One guest with two disks of the same size is moved once per run; each way then copies one of them over the same link:

nbdcopy       the path handler's export, with the same keys, into a raw file on the target: the practical limit
qemu-esd      what `settle` does with a disk: copied, proven by the map, detached, flushed
block-stream  QEMU's own job in the same graph, for STREAM_SECONDS at most. It is timed, and no more than that: it can
              lose data silently

rate      bytes of data (not of holes) per second, until all is on the disk of the target
link      bytes over the link, both ways, per byte of data
iops      operations per second of the guest meanwhile
longest   the longest single I/O of the guest meanwhile
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from qemu_esd import api
from qemu_esd.errors import EsdError
from qemu_esd.graph import names
from qemu_esd.graph.tls import KEY_FILE
from qemu_esd.hosts import lab
from qemu_esd.model.disk import Link, TlsTcp, link_of
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import DiskRecord
from qemu_esd.model.request import Request
from qemu_esd.phases import mover, settle
from qemu_esd.phases.station import Station
from qemu_esd.qmp import jobs
from qemu_esd.units import GIB, MIB, TIB, human_bytes
from tests.bench.bench import Bench, Measure, Settings, Unit
from tests.bench.delay import delayed
from tests.bench.outcome import Results, Sample
from tests.bench.rows import AREA, FrontDrive, Row, parse_row
from tests.bench.stand import Stand, machine_facts, open_stand
from tests.bench.witness import Witness, watching
from tests.integration.support.guest import MEMORY, Guest
from tests.integration.support.machine import SRV, Machine

NAME = "bench"
BEATS = 2
AROUND_SECONDS = 120.0
STREAM_SECONDS = 8.0
LOOK_SECONDS = 0.05
GIGABIT = 125_000_000
IDLE = "esd.mode=idle"
LOADED = f"esd.mode=verify esd.rate=200 esd.mix=50/50/0 esd.spread=0 esd.area={AREA}"
NBDCOPY, OURS, STREAM = "nbdcopy", "qemu-esd", "block-stream"


@dataclass(frozen=True)
class Conditions:
    """A row: the disk, the link between the hosts (bytes/s and seconds each way; None: as it is), the guest's load."""

    disk: Row
    link: str = "link as is"
    rate: int | None = None
    delay: float | None = None
    loaded: bool = False

    @property
    def name(self) -> str:
        return f"{self.disk.name}, {self.link}{', under load' if self.loaded else ''}"


def conditions(disk: Row) -> tuple[Conditions, ...]:
    """All of them for one disk."""
    plain = Conditions(disk)
    gigabit = replace(plain, link="1 Gbit/s", rate=GIGABIT)
    far = replace(plain, link="10 ms each way", delay=0.01)
    return (plain, replace(plain, loaded=True), gigabit, far, replace(far, loaded=True))


SPARSE = Conditions(Row(TIB, 64 * MIB))
FULL = (*conditions(Row(GIB, GIB)), SPARSE)
QUICK = conditions(Row(128 * MIB, 128 * MIB))[1::2]


async def run(settings: Settings) -> Results:
    """Measure everything. One line of progress per copy on stderr."""
    when, facts = datetime.now(UTC).isoformat(timespec="seconds"), machine_facts()
    samples: list[Sample] = []
    async with open_stand(settings.rate) as stand:
        for number in range(settings.runs):
            for row in _rows(settings):
                async for sample in _samples(stand, row, number, settings.bound):
                    samples.append(sample)
                    _say(sample)
        facts |= {"accel": stand.accel(), "guest_memory_mib": MEMORY >> 20, "load": LOADED, "tls": True}
    facts |= {"runs": settings.runs, "bound_s": settings.bound, "link_rate": settings.rate}
    return Results("settle", when, facts, tuple(samples))


def _rows(settings: Settings) -> tuple[Conditions, ...]:
    asked = tuple(each for text in settings.disks for each in conditions(parse_row(text)))
    return asked or (QUICK if settings.quick else FULL)


async def _samples(stand: Stand, row: Conditions, number: int, bound: float) -> AsyncIterator[Sample]:
    """The ways in turns on one guest; who comes first changes from run to run."""
    stand.sweep()
    try:
        async with _link(stand, row), _moved(stand, row) as (station, witness):
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                yield await _sample(stand, row, way, number, bound, station, witness)
    except (EsdError, AssertionError, TimeoutError) as error:
        yield Sample(row.name, OURS, number, None, f"{type(error).__name__}: {error}")
    finally:
        stand.sweep()


@asynccontextmanager
async def _link(stand: Stand, row: Conditions) -> AsyncIterator[None]:
    one, other = stand.a.lab, stand.b.lab
    before = await lab.link_between(one.name, other.name)
    if row.delay:
        async with delayed(one, other, row.delay):
            yield
        return
    await lab.set_link(replace(before, rate=row.rate or before.rate))
    try:
        yield
    finally:
        await lab.set_link(before)


@asynccontextmanager
async def _moved(stand: Stand, row: Conditions) -> AsyncIterator[tuple[Station, Witness]]:
    """The guest runs on the target, and nothing of its two disks is there yet: `vda` is ours, `vdb` for the stream."""
    drives = [FrontDrive(id, seed=7, size=row.disk.size, data=row.disk.data) for id in ("vda", "vdb")]
    guest = Guest(NAME, stand.a, drives)
    await guest.start(stand.image, LOADED if row.loaded else IDLE)
    async with watching(NAME, stand.a, stand.b) as witness:
        kept = {"vda": Handler.ON_DEMAND, "vdb": Handler.REDIRECT}
        request = Request(NAME, stand.b.name, Handler.REDIRECT, source=stand.a.name, disk_handlers=kept)
        await api.migrate(request, lambda _: None, until_settled=False)
        async with api.open_guest(NAME, stand.b.name) as station:
            yield station, witness


async def _sample(
    stand: Stand, row: Conditions, way: str, number: int, bound: float, station: Station, witness: Witness
) -> Sample:
    async with asyncio.timeout(AROUND_SECONDS):
        await witness.hear(stand.b.name, BEATS)
    before, heard, started = stand.link_bytes(), len(witness.beats), time.monotonic()
    try:
        async with asyncio.timeout(bound):
            moved = await WAYS[way](stand, station, row.disk.data)
    except TimeoutError:
        return Sample(row.name, way, number, None, f"not finished within {bound:g} s", unfinished=True)
    seconds, link = time.monotonic() - started, stand.link_bytes() - before
    figures = {"rate": round(moved / seconds), "link": round(link / moved, 4), **_guest(witness, heard)}
    return Sample(row.name, way, number, figures)


def _guest(witness: Witness, heard: int) -> dict[str, float]:
    """What the guest says of its own I/O, from its last line before until its last line now."""
    lines = [beat.line for beat in witness.beats[max(heard - 1, 0) :]]
    seconds = lines[-1].number("t") - lines[0].number("t")
    if not seconds or not lines[-1].number("ops"):
        return {}
    done = lines[-1].number("ops") - lines[0].number("ops")
    return {"iops": round(done / seconds, 1), "longest": max(line.number("istall") for line in lines[1:])}


# ---- the ways: each returns how many bytes of data it has moved


async def _nbdcopy(stand: Stand, station: Station, data: int) -> int:
    link, copy = _link_of(_disk(station, "vda")), f"{SRV}/nbdcopy.raw"
    assert isinstance(link.endpoint, TlsTcp)
    at = f"{link.endpoint.address}:{link.endpoint.port}"
    uri = f"nbds://qemu@{at}/{link.export}?tls-psk-file={link.endpoint.key_dir}/{KEY_FILE}"
    try:
        await _run(stand.b, "nbdcopy", "--flush", uri, copy)
    finally:
        stand.b.real(copy).unlink(missing_ok=True)
    return data


async def _run(machine: Machine, *argv: str) -> None:
    assert machine.lab.init is not None
    enter = ("nsenter", f"--target={machine.lab.init.pid}", "--all", "--wd=/", "--")
    process = await asyncio.create_subprocess_exec(*enter, *argv, stderr=asyncio.subprocess.PIPE)
    try:
        said = (await process.communicate())[1]
        assert process.returncode == 0, f"{argv} ended with {process.returncode}: {said.decode(errors='replace')}"
    finally:
        if process.returncode is None:
            process.kill()


async def _ours(stand: Stand, station: Station, data: int) -> int:
    disk = _disk(station, "vda")
    try:
        await settle.settle_disk(station, disk, lambda *_: None)
    finally:
        # It would go on by itself, beside the next way.
        await mover.end_mirror(station.qemu, disk.suid)
    return data


async def _stream(stand: Stand, station: Station, data: int) -> int:
    qemu, disk, id = station.qemu, _disk(station, "vdb"), "bench-stream"
    overlay = names.overlay(disk.suid, disk.level)
    await qemu.execute("block-stream", job_id=id, device=overlay, on_error="report", auto_dismiss=False)
    try:
        return min(await _streamed(station, id), data)
    finally:
        await jobs.cancel(qemu, id)
        await jobs.wait_status(qemu, id, frozenset({"concluded"}), AROUND_SECONDS)
        await jobs.dismiss(qemu, id)


async def _streamed(station: Station, id: str) -> int:
    """How far the job has come when it is done, or after STREAM_SECONDS."""
    end = time.monotonic() + STREAM_SECONDS
    while True:
        job = (await jobs.running(station.qemu))[id]
        if job.status == "concluded" or time.monotonic() > end:
            return job.done
        await asyncio.sleep(LOOK_SECONDS)


def _disk(station: Station, id: str) -> DiskRecord:
    return next(disk for disk in station.record.disks if disk.id == id)


def _link_of(disk: DiskRecord) -> Link:
    link = link_of(disk.chain)
    assert link is not None
    return link


WAYS: dict[str, Callable[[Stand, Station, int], Awaitable[int]]] = {
    NBDCOPY: _nbdcopy,
    OURS: _ours,
    STREAM: _stream,
}


def _say(sample: Sample) -> None:
    told = sample.why if sample.figures is None else _brief(sample.figures)
    print(f"  run {sample.run + 1}  {sample.row:44} {sample.way:14} {told}", file=sys.stderr, flush=True)


def _brief(figures: Mapping[str, float]) -> str:
    return f"{human_bytes(figures['rate'])}/s, {figures['link']:.3f} bytes on the link per byte"


BENCH = Bench(
    "settle",
    "how fast a whole disk comes to the target while the guest runs there; at least 0.9 of nbdcopy, the practical "
    "limit, and with a delay of 10 ms at least 4 times block-stream",
    tuple(WAYS),
    (
        Measure("rate", "data moved per second", Unit.RATE, drawn="MiB of data moved per second"),
        Measure("link", "bytes on the link per byte of data", Unit.TIMES),
        Measure("iops", "operations of the guest", Unit.PER_SECOND),
        Measure("longest", "longest I/O of the guest", Unit.MILLIS),
    ),
    run,
)
