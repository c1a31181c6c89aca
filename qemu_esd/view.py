"""What `status` and `migrate` show of a guest: the JSON fields of the contract, gathered from host and QEMU."""

from __future__ import annotations

from dataclasses import dataclass

from qemu_esd.graph import names
from qemu_esd.hosts import service
from qemu_esd.model.disk import link_of
from qemu_esd.model.plan import Plan
from qemu_esd.model.record import DiskRecord, State
from qemu_esd.phases import places, windows
from qemu_esd.phases.context import Clock
from qemu_esd.phases.station import Station
from qemu_esd.qmp import jobs


@dataclass(frozen=True)
class DiskView:
    """One disk. Bytes of virtual size, of data here, of data still elsewhere; holes are neither."""

    disk: str
    suid: str
    handler: str
    write_policy: str
    virtual_bytes: int
    local_bytes: int
    remote_bytes: int
    needs_source: bool


@dataclass(frozen=True)
class JobView:
    """The background move of one disk, in bytes."""

    disk: str
    done: int
    total: int


@dataclass(frozen=True)
class GuestView:
    """A guest as it is now. `link` is "none", "up" or "down"; `job` is set while data is being moved."""

    vm: str
    host: str
    state: str
    generation: int
    link: str
    job: JobView | None
    disks: tuple[DiskView, ...]
    upstream: tuple[str, ...]
    left_behind: tuple[str, ...]


@dataclass(frozen=True)
class MigrationView:
    """The outcome of one `migrate`. Times in ms, by the controller's clock."""

    id: str
    vm: str
    source: str
    target: str
    committed: bool
    state: str
    downtime_ms: float
    resumed_after_ms: float
    total_ms: float
    disks: tuple[DiskView, ...]


async def of_station(station: Station) -> GuestView:
    record = station.record
    return GuestView(
        vm=record.name,
        host=station.host.name,
        state=state_of(station),
        generation=record.generation,
        link=await _link(station),
        job=await _job(station),
        disks=await disk_views(station),
        upstream=tuple(one.host for one in record.upstream),
        left_behind=tuple(one.host for one in record.left_behind),
    )


def state_of(station: Station) -> str:
    """One word for how far the guest's last migration is; "local" if it never moved or all is forgotten."""
    if station.record.upstream:
        return State.HANDED_OVER
    if station.record.left_behind:
        return State.SETTLED
    return State.RELEASED if station.record.migration else "local"


async def _link(station: Station) -> str:
    """Whether the units that keep the way to the source are there."""
    migration = station.record.migration
    if not station.record.upstream or migration is None:
        return "none"
    for name in (places.tunnel_name(migration), places.watch_name(migration)):
        if await service.state(station.host, station.paths.unit(name), name) == "running":
            return "up"
    return "down"


async def _job(station: Station) -> JobView | None:
    running = await jobs.running(station.qemu)
    for disk in station.record.disks:
        job = running.get(names.move_job(disk.suid))
        if job:
            return JobView(disk.id, job.done, job.total)
    return None


async def disk_views(station: Station) -> tuple[DiskView, ...]:
    known = {disk.suid: disk for disk in station.record.disks}
    return tuple([await _disk(station, disk.suid, disk.id, disk.size, known.get(disk.suid)) for disk in station.guest.disks])


async def _disk(station: Station, suid: str, id: str, size: int, record: DiskRecord | None) -> DiskView:
    """A disk that was never moved, or is settled, is all local."""
    if record is None or link_of(record.chain) is None:
        handler = str(record.handler) if record and record.handler else "local"
        return DiskView(id, suid, handler, "local", size, size, 0, needs_source=False)
    assert record.handler is not None
    needs = record.handler.needs_source
    if len(record.chain) == 1:
        return DiskView(id, suid, str(record.handler), "local", size, 0, size, needs_source=True)
    now = await windows.residency(station.host, station.sockets.nbd, suid)
    return DiskView(id, suid, str(record.handler), "local", size, now.local_bytes, now.remote_bytes, needs)


async def of_migration(
    station: Station, plan: Plan, state: State, figures: dict[str, float], clock: Clock
) -> MigrationView:
    return MigrationView(
        id=plan.id,
        vm=plan.vm,
        source=plan.source.host,
        target=plan.target.host,
        committed=state.committed,
        state=str(state),
        downtime_ms=round(figures["downtime"], 1),
        resumed_after_ms=round(figures["resumed-after"], 1),
        total_ms=round(clock.ms_since("start"), 1),
        disks=await disk_views(station),
    )
