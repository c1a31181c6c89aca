"""A guest as it is now, from its host, its QEMU and the journal here."""

from __future__ import annotations

import asyncio

from qemu_esd.errors import EsdError
from qemu_esd.graph import names
from qemu_esd.journal import store
from qemu_esd.model.disk import link_of
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import GuestRecord, State
from qemu_esd.phases.station import Station
from qemu_esd.qmp import blockdev, jobs, machine, virtio
from qemu_esd.view.disks import disk_views
from qemu_esd.view.facts import GuestView, JobView
from qemu_esd.view.link import state_of_link
from qemu_esd.view.outcome import figures_of
from qemu_esd.view.parts import hosts_of, journal_of, memory_of

# A job tells how far it is, not how fast: it is looked at twice.
RATE_SECONDS = 0.5
# QEMU's word. A disk can keep its error while the guest goes on (7.2.22): it is only asked while one stands still.
STOPPED_BY_DISK = "io-error"


async def of_station(station: Station) -> GuestView:
    record, story = station.record, _story(station.record)
    job = await _job(station)
    # Over a dead link this takes a while: the link is looked at when it is done.
    disks = await disk_views(station, busy=job is not None)
    link, link_down_s, received = await state_of_link(station)
    figures, run_state = figures_of(story), await machine.run_state(station.qemu)
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
        job=job,
        run_state=run_state,
        generation=record.generation,
        upstream=tuple(one.host for one in record.upstream),
        left_behind=tuple(one.host for one in record.left_behind),
        link_down_s=link_down_s,
        link_received_bytes=received,
        io_errors=await _io_errors(station) if run_state == STOPPED_BY_DISK else {},
        waiting_requests=await virtio.requests_in_flight(station.qemu) if link == "down" else None,
        bandwidth=record.bandwidth,
        hosts=hosts_of(record, station.host.name),
        journal=journal_of(story) if story else None,
        memory=await memory_of(station.qemu),
        kind=station.guest.kind,
    )


async def _io_errors(station: Station) -> dict[str, str]:
    told = await blockdev.io_errors(station.qemu)
    disks = [(disk.id, told.get(disk.qdev) or told.get(disk.qdev.rsplit("/", 1)[-1])) for disk in station.guest.disks]
    return {id: status for id, status in disks if status}


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
