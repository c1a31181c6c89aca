"""What `status` and `migrate` show of a guest: the JSON fields of the contract, from host, QEMU and journal."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from qemu_esd.errors import EsdError
from qemu_esd.graph import names
from qemu_esd.hosts import service
from qemu_esd.hosts.base import run
from qemu_esd.journal import store
from qemu_esd.model.disk import Disk, Endpoint, UnixPath, link_of
from qemu_esd.model.pace import Bandwidth
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import DiskRecord, GuestRecord, Measured, State
from qemu_esd.nbd import Residency
from qemu_esd.phases import links, windows
from qemu_esd.phases.station import Station
from qemu_esd.qmp import blockdev, jobs, machine, virtio
from qemu_esd.view_parts import HostView, JournalView, MemoryView, hosts_of, journal_of, memory_of

# A map of scattered data is a question to the source per piece.
RESIDENCY_SECONDS = 20.0
# How often the watch's note is looked for while a map is awaited.
SILENCE_SECONDS = 1.0
# A job tells how far it is, not how fast: it is looked at twice.
RATE_SECONDS = 0.5


@dataclass(frozen=True)
class DiskView:
    """One disk. Bytes of virtual size, of data here, of data still elsewhere (None: unknown); holes are neither."""

    disk: str
    suid: str
    handler: str
    write_policy: str
    virtual_bytes: int
    local_bytes: int | None
    remote_bytes: int | None
    needs_source: bool


@dataclass(frozen=True)
class JobView:
    """The background move of one disk: bytes, and bytes per second; `limit` is the most it may have now, None: any."""

    disk: str
    done: int
    total: int
    rate: int
    limit: int | None = None


@dataclass(frozen=True)
class MigrationView:
    """The outcome of one `migrate`. Times in ms, by the controller's clock; None for what did not come to pass."""

    id: str
    vm: str
    source: str
    target: str
    committed: bool
    state: str
    downtime_ms: float | None
    resumed_after_ms: float | None
    total_ms: float | None
    disks: tuple[DiskView, ...]


@dataclass(frozen=True)
class GuestView:
    """A guest as it is now, with its last migration (`id` None: it has not moved, or nobody knows).

    `run_state` is QEMU's word; `link` is "none", "up" or "down", the latter for `link_down_s` seconds, if its watch has
    noticed; then `waiting_requests` is how many requests its disks have not answered, where QEMU tells.
    `link_received_bytes` came over the link's present connections (None: it is no TCP). `job` is set
    while data is being moved; `bandwidth` is what it may take: bytes/s, "auto", or None. `upstream` are the hosts it
    still reads from, `left_behind` those that keep their member aside; `problem` is what is wrong.
    `io_errors` are the disks that have stopped it, each with QEMU's word for why: "nospace", or "failed".
    `hosts` are those that have to do with it, `journal` what this controller has of its last migration, and `memory`
    is set while its memory moves.
    """

    id: str | None
    vm: str
    source: str | None
    target: str
    committed: bool
    state: str
    downtime_ms: float | None
    resumed_after_ms: float | None
    total_ms: float | None
    disks: tuple[DiskView, ...]
    host: str
    link: str
    job: JobView | None
    run_state: str | None = None
    generation: int = 0
    upstream: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    problem: str | None = None
    link_down_s: int | None = None
    link_received_bytes: int | None = None
    io_errors: Mapping[str, str] = field(default_factory=dict)
    waiting_requests: int | None = None
    bandwidth: Bandwidth = None
    hosts: tuple[HostView, ...] = ()
    journal: JournalView | None = None
    memory: MemoryView | None = None


async def of_station(station: Station) -> GuestView:
    record, story = station.record, _story(station.record)
    # Over a dead link this takes a while: the link is looked at when it is done.
    disks = await disk_views(station)
    link, link_down_s, received = await _link(station)
    figures = figures_of(story)
    return GuestView(
        id=record.migration,
        vm=record.name,
        source=story.plan.source.host if story else _source(record),
        target=station.host.name,
        committed=record.migration is not None,
        state=state_of(record),
        downtime_ms=figures.get("downtime"),
        resumed_after_ms=figures.get("resumed-after"),
        total_ms=figures.get("total"),
        disks=disks,
        host=station.host.name,
        link=link,
        job=await _job(station),
        run_state=await machine.run_state(station.qemu),
        generation=record.generation,
        upstream=tuple(one.host for one in record.upstream),
        left_behind=tuple(one.host for one in record.left_behind),
        link_down_s=link_down_s,
        link_received_bytes=received,
        io_errors=await _io_errors(station),
        waiting_requests=await virtio.requests_in_flight(station.qemu) if link == "down" else None,
        bandwidth=record.bandwidth,
        hosts=hosts_of(record, station.host.name),
        journal=journal_of(story) if story else None,
        memory=await memory_of(station.qemu),
    )


async def _io_errors(station: Station) -> dict[str, str]:
    told = await blockdev.io_errors(station.qemu)
    disks = [(disk.id, told.get(disk.qdev) or told.get(disk.qdev.rsplit("/", 1)[-1])) for disk in station.guest.disks]
    return {id: status for id, status in disks if status}


def of_absent(vm: str, host: str, state: str, problem: str | None) -> GuestView:
    """A guest of which no more is known than its name and where it was."""
    return GuestView(None, vm, None, host, False, state, None, None, None, (), host, "none", None, problem=problem)


def _story(record: GuestRecord) -> store.Story | None:
    """The journal of the guest's last migration, if it was begun by this controller."""
    try:
        return store.read(record.migration) if record.migration else None
    except (OSError, EsdError):
        return None


def _source(record: GuestRecord) -> str | None:
    former = (*record.upstream, *record.left_behind)
    return next((one.host for one in former if one.migration == record.migration), None)


def state_of(record: GuestRecord) -> str:
    """One word for how far the guest's last migration is; "local" if it never moved."""
    if record.upstream:
        moving = any(disk.handler is Handler.BACKGROUND and link_of(disk.chain) for disk in record.disks)
        return State.SETTLING if moving else State.HANDED_OVER
    if record.left_behind:
        return State.SETTLED
    return State.RELEASED if record.migration else "local"


def figures_of(story: store.Story | None) -> dict[str, float]:
    """What a migration measured, in ms by name."""
    entries = story.entries if story else ()
    return {entry.name: round(entry.ms, 1) for entry in entries if isinstance(entry, Measured)}


async def _link(station: Station) -> tuple[str, int | None, int | None]:
    """Whether the way to the source stands: the connections of its disks, or the tunnel that carries them; for how many
    seconds nobody has answered at its other end; and how many bytes came over it."""
    ways = {link.endpoint for disk in station.linked() if _is_read(disk) and (link := link_of(disk.chain))}
    if not ways:
        return "none", None, None
    longest, standing = await asyncio.gather(
        _silence(station), asyncio.gather(*(_stands(station, way) for way in ways))
    )
    received = [one.received for one in standing if one.received is not None]
    state = "up" if all(one.stands for one in standing) and longest is None else "down"
    return state, longest, sum(received) if received else None


async def _silence(station: Station) -> int | None:
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


async def _job(station: Station) -> JobView | None:
    """The first job that moves data, watched for a moment to see how fast it is."""
    suids = {names.move_job(disk.suid): disk.id for disk in station.record.disks}
    before = next((job for job in (await jobs.running(station.qemu)).values() if job.id in suids), None)
    if before is None:
        return None
    await asyncio.sleep(RATE_SECONDS)
    now = (await jobs.running(station.qemu)).get(before.id, before)
    limit = await jobs.speed(station.qemu, now.id)
    return JobView(suids[now.id], now.done, now.total, int((now.done - before.done) / RATE_SECONDS), limit)


@dataclass(frozen=True)
class DiskMap:
    """Where the bytes of a disk are; `residency` None: all in one place, or not to be asked (`view` tells)."""

    view: DiskView
    residency: Residency | None


async def disk_views(station: Station) -> tuple[DiskView, ...]:
    return tuple(each.view for each in await disk_maps(station, station.guest.disks))


async def disk_maps(station: Station, disks: Iterable[Disk]) -> tuple[DiskMap, ...]:
    """These disks of a guest, each with the map that its figures are from."""
    known = {disk.suid: disk for disk in station.record.disks}
    maps = [_disk(station, disk.suid, disk.id, disk.size, known.get(disk.suid)) for disk in disks]
    return tuple(await asyncio.gather(*maps))


async def _disk(station: Station, suid: str, id: str, size: int, record: DiskRecord | None) -> DiskMap:
    """A disk that was never moved, or is settled, is all local; only `miss` leaves data behind for good."""
    if record is None or record.handler is None:
        return DiskMap(DiskView(id, suid, "local", "local", size, size, 0, needs_source=False), None)
    handler, link = record.handler, link_of(record.chain)
    view = DiskView(id, suid, handler, "local", size, size, 0, handler.needs_source and link is not None)
    if link is not None and len(record.chain) == 1:
        return DiskMap(replace(view, local_bytes=0, remote_bytes=size), None)
    if link is None and handler is not Handler.MISS:
        return DiskMap(view, None)
    # By these one knows what is below the overlay: another policy, or one more overlay, is another thing.
    now = await residency(station, suid, (suid, link and link.export, handler.needs_source, record.level))
    local, remote = (now.local_bytes, now.remote_bytes) if now else (None, None)
    return DiskMap(replace(view, local_bytes=local, remote_bytes=remote), now)


async def residency(station: Station, suid: str, below: object) -> Residency | None:
    """Where each byte of a device is now, or None while it cannot be asked: its window is closed, or a link is dead.
    `below` names what is below its overlay.

    A map is a question to the source too, so nobody waits for one when the watch of a link knows better.
    """
    tasks = list[asyncio.Future[Residency | None]]()
    try:
        async with asyncio.timeout(RESIDENCY_SECONDS):
            if await _silence(station) is not None:
                return None
            asked = windows.glance(station.host, station.windows, suid, below)
            tasks += map(asyncio.ensure_future, (asked, _until_silence(station)))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
    except (EsdError, OSError, TimeoutError):
        return None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_silence(station: Station) -> None:
    """Returns when the watch of a link says that nobody answers there. It has no event: it is a note on the host."""
    while True:
        if await _silence(station) is not None:
            return
        await asyncio.sleep(SILENCE_SECONDS)


def of_migration(story: store.Story, disks: Iterable[DiskMap]) -> MigrationView:
    """A migration whose guest runs on the target."""
    return _outcome(story, tuple(each.view for each in disks))


def of_story(story: store.Story) -> MigrationView:
    """A migration as its journal alone tells it: what is where is known only if nothing was moved."""
    return _outcome(story, tuple(_planned_disks(story)))


def _outcome(story: store.Story, disks: tuple[DiskView, ...]) -> MigrationView:
    figures = figures_of(story)
    return MigrationView(
        id=story.plan.id,
        vm=story.plan.vm,
        source=story.plan.source.host,
        target=story.plan.target.host,
        committed=story.state.committed,
        state=story.state,
        downtime_ms=figures.get("downtime"),
        resumed_after_ms=figures.get("resumed-after"),
        total_ms=figures.get("total"),
        disks=disks,
    )


def _planned_disks(story: store.Story) -> list[DiskView]:
    moved = story.state.committed
    return [
        DiskView(
            plan.disk.id,
            plan.disk.suid,
            plan.handler,
            "local",
            plan.disk.size,
            None if moved else plan.disk.size,
            None if moved else 0,
            moved and plan.handler.needs_source,
        )
        for plan in story.plan.disks
    ]
