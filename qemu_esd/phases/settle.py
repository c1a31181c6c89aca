"""Settle: every byte that the policy moves is on the target, proven and flushed, and the link is gone.

The order is what protects the data: copied → proven by the map → detached → flushed → written down → only then does a
source give its image up. A kill anywhere: `settle` again goes on from what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from qemu_esd.errors import EsdError, LibvirtError, RefusedError, UnfinishedError
from qemu_esd.graph import names
from qemu_esd.graph.handlers import overlays
from qemu_esd.hosts import files
from qemu_esd.hypervisors.libvirt import acts
from qemu_esd.log import logger, step
from qemu_esd.model.disk import Image, images
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import DiskRecord, GuestRecord
from qemu_esd.model.vm import Kind
from qemu_esd.phases import aside, filter, layers, linkends, mover, relay, way_home, windows
from qemu_esd.phases.station import Station, with_disk
from qemu_esd.qmp import blockdev, machine

OnBytes = Callable[[str, int, int], None]


async def settle(station: Station, on_bytes: OnBytes) -> Station:
    """Bring over all that is missing and end the dependence on other hosts. Settled already is fine."""
    station = await settle_disks(station, station.linked(), on_bytes)
    return await cut(station)


async def settle_disks(station: Station, disks: Iterable[DiskRecord], on_bytes: OnBytes) -> Station:
    """These disks, one after the other. One that is stuck does not keep the others: it is told of when all are done."""
    stuck: list[UnfinishedError] = []
    for disk in disks:
        try:
            station = await settle_disk(station, disk, on_bytes)
        except UnfinishedError as error:
            stuck.append(error)
    if stuck:
        what = "; ".join(error.what for error in stuck)
        raise UnfinishedError(what, host=station.host.name, hint=stuck[0].hint) from stuck[0]
    return station


@step
async def settle_disk(station: Station, disk: DiskRecord, on_bytes: OnBytes) -> Station:
    """One disk: nothing of it is elsewhere afterwards."""
    await layers.complete(station, disk)
    base: tuple[Image, ...] = ()
    if disk.handler is not Handler.MISS:
        await windows.open_all(station, (disk,))
        await filter.insert(station, disk)
        base = await _bring(station, disk, lambda done, total: on_bytes(disk.id, done, total))
        await filter.remove(station, disk)
        await _flush(station, disk)
    return await _write_down(station, disk, base)


async def _bring(station: Station, disk: DiskRecord, on_bytes: mover.OnBytes) -> tuple[Image, ...]:
    """What is missing: all of it, or at home what has changed, over the images that this returns."""
    base = await way_home.come(station, disk, on_bytes)
    if not base:
        await mover.make_local(station, disk, on_bytes)
        await _DETACH[station.guest.kind](station, disk)
    return base


async def _detach_domain(station: Station, disk: DiskRecord) -> None:
    """libvirt's own pull is what makes its XML right. It finds nothing but holes, which the relay answers with zeroes:
    a stream that is refused one writes what happens to be in its buffer.

    A kill anywhere: a pull goes on by itself; the relay's zeroes are what the source has there too.
    """
    from qemu_esd.hypervisors.libvirt import writer

    libvirt, name = await station.monitors.libvirt(station.host.name), station.record.name
    await filter.remove(station, disk)
    await windows.close_sides(station.qemu, disk.suid)
    if await blockdev.has_backing(station.qemu, station.overlay(disk)):
        await _flush(station, disk)
        migration = station.record.migration
        assert migration is not None
        await relay.answer_with_zeroes(station.hosts, station.monitors, station.host.name, migration, disk)
        await acts.pull(libvirt, name, disk.id)
        await _check_pulled(station, disk)
    await acts.redefine(libvirt, name, lambda xml: writer.settled(xml, (disk.id,)))


async def _check_pulled(station: Station, disk: DiskRecord) -> None:
    if await blockdev.has_backing(station.qemu, station.overlay(disk)):
        raise EsdError(f"{disk.id} still has a backing after libvirt's pull", host=station.host.name)


async def _detach(station: Station, disk: DiskRecord) -> None:
    """Drop the backing, of which nothing but holes is still seen: they read as zeroes without it too.

    The header forgets it first, and only what is flushed by then counts. A kill between the two: the record still names
    the link, the graph is made by the record, and `settle` comes here again.
    """
    qemu, name = station.qemu, names.overlay(disk.suid, disk.level)
    await windows.close_sides(qemu, disk.suid)
    if await blockdev.has_backing(qemu, name):
        await _flush(station, disk)
        await blockdev.forget_backing(qemu, names.copy_on_read(disk.suid), name)
        top = overlays.overlay(disk.suid, images(disk.chain)[0], None, disk.level)
        await blockdev.reopen(qemu, {**top, "file": names.file(disk.suid, disk.level)})
    await _check_detached(station, disk)


_DETACH = {Kind.BARE: _detach, Kind.DOMAIN: _detach_domain}


async def _check_detached(station: Station, disk: DiskRecord) -> None:
    overlay = (await blockdev.named(station.qemu))[names.overlay(disk.suid, disk.level)]
    if "backing-image" in overlay["image"] or "backing_file" in overlay:
        raise EsdError(f"{disk.id} still has a backing after its detach", host=station.host.name)
    below = [names.overlay(disk.suid, level) for level in reversed(range(disk.level))]
    present = await blockdev.names(station.qemu)
    for name in (*below, names.remote(disk.suid)):
        if name in present:
            await blockdev.delete(station.qemu, name)


async def _flush(station: Station, disk: DiskRecord) -> None:
    """What was copied is not durable yet: qcow2's metadata may be in QEMU's cache only (measured: half a disk lost)."""
    async with windows.look(station.host, station.windows, disk.suid) as client:
        await client.flush()


async def _write_down(station: Station, disk: DiskRecord, base: tuple[Image, ...]) -> Station:
    """The record says that this disk needs nobody. A kill before this line: `settle` proves it again."""
    kept = images(disk.chain)
    if not kept:
        raise RefusedError(f"{disk.id} has no space on this host to settle in", host=station.host.name)
    if disk.handler is Handler.MISS:
        return await station.rewrite(with_disk(station.record, replace(disk, chain=kept)))
    settled = replace(disk, chain=kept[:1], handler=None, base=base)
    station = await station.rewrite(with_disk(station.record, settled))
    for lower in kept[1:]:
        await files.remove(station.host, lower.path)
    return station


@step
async def cut(station: Station) -> Station:
    """End the link on this host, then let each upstream host put its member aside, the nearest first."""
    if station.linked():
        raise EsdError("a disk still needs its source", host=station.host.name)
    await _let_go_on(station)
    for disk in station.record.disks:
        await windows.close_sides(station.qemu, disk.suid)
    await windows.close_all(station.qemu)
    await _drop_link(station)
    for upstream in station.record.upstream:
        await aside.put_aside(await station.hosts.get(upstream.host), upstream.migration)
    return await station.rewrite(_settled(station.record))


async def _let_go_on(station: Station) -> None:
    """A guest that a failed read has stopped: what it asks again is here now, and the watch that would tell it goes."""
    if await machine.run_state(station.qemu) == "io-error":
        errors = await blockdev.io_errors(station.qemu)
        if "nospace" not in errors.values():
            logger.warning("a failed read had stopped the guest; all is here now, and it goes on", disks=list(errors))
            await _GO_ON[station.guest.kind](station)


async def _cont(station: Station) -> None:
    await machine.cont(station.qemu)


async def _resume(station: Station) -> None:
    """By libvirt, so that it knows; by the QEMU where libvirt believes that it runs already."""
    try:
        await acts.resume(await station.monitors.libvirt(station.host.name), station.record.name)
    except LibvirtError:
        await machine.cont(station.qemu)


_GO_ON = {Kind.BARE: _cont, Kind.DOMAIN: _resume}


async def _drop_link(station: Station) -> None:
    """Keys, watch and tunnel of the link on this host."""
    migration = station.record.migration
    if migration is None:
        return
    if names.credentials(migration) in await machine.objects(station.qemu):
        await machine.delete_object(station.qemu, names.credentials(migration))
    await linkends.drop(station.host, station.paths, migration)


def _settled(record: GuestRecord) -> GuestRecord:
    return replace(record, upstream=(), left_behind=record.left_behind + record.upstream)
