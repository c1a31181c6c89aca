"""The way home: where the image that a guest has left still lies here, only what has changed since is brought over.

The guest arrives as ever, on an overlay over the link. When it settles, the clusters that it has written on the other
host are filled; all else is the same in the old image, which becomes the overlay's backing instead of the link. So the
disk ends as a qcow2 over a local image. That gets a second name (a hard link): `release` deletes the first, as ever.

A kill anywhere before the disk's line is written: the record names the link, the graph is made by the record, and
`settle` comes here again. After it: nothing needs the link.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from qemu_esd import nbd
from qemu_esd.errors import EsdError, RefusedError
from qemu_esd.graph import names, nodes
from qemu_esd.graph.handlers import overlays
from qemu_esd.hosts import files
from qemu_esd.hypervisors import records
from qemu_esd.log import logger
from qemu_esd.model.disk import Image, images, link_of
from qemu_esd.model.record import DiskRecord, LinkMember
from qemu_esd.phases import aside, changes, identity, mover, windows
from qemu_esd.phases.mover import OnBytes
from qemu_esd.phases.station import Station
from qemu_esd.qmp import blockdev, jobs

# Each way home adds an image. With more of them everything is moved, into one.
MAX_IMAGES = 8


@dataclass(frozen=True)
class Fork:
    """A disk as it was left on this host: its images under their names of now, and what differs from them since."""

    member: LinkMember
    changed: list[nbd.Range]


async def come(station: Station, disk: DiskRecord, on_bytes: OnBytes) -> tuple[Image, ...]:
    """The images that the overlay is above now, top first, and all that they lack is in it.

    () where nothing of the disk is left here, or nobody knows what has changed: then all of it has to be moved.
    Raises UnfinishedError when something cannot be brought over.
    """
    fork = await _find(station, disk)
    if fork is None:
        return ()
    await mover.end_mirror(station.qemu, disk.suid)
    await mover.fill_only(station, disk, fork.changed, on_bytes)
    try:
        base = await _base(station, disk, fork)
    except EsdError as error:
        logger.info("the image that was left here cannot be used: all is moved", disk=disk.id, error=str(error))
        return ()
    await _rebase(station, disk, base)
    return base


async def _find(station: Station, disk: DiskRecord) -> Fork | None:
    """Whatever is in doubt means that there is none."""
    record = station.record
    for behind in (*record.upstream, *record.left_behind):
        if behind.host == station.host.name:
            try:
                return await _fork(station, disk, behind.migration)
            except EsdError as error:
                told = {"disk": disk.id, "migration": behind.migration, "why": str(error)}
                logger.info("what was left here is of no use", **told)
    return None


async def _fork(station: Station, disk: DiskRecord, migration: str) -> Fork:
    """Raises EsdError where the disk as that migration left it is not to be had, or not what is missing in it."""
    member = await _left(station, disk, migration)
    changed = await changes.since(station, disk, migration)
    logger.info("only what has changed is moved", disk=disk.id, bytes=sum(one.length for one in changed))
    return Fork(member, changed)


async def _left(station: Station, disk: DiskRecord, migration: str) -> LinkMember:
    """The disk as it lies here since that migration. Raises RefusedError if it does not, or is not what it was then."""
    link = await records.link(station.host, station.paths, migration)
    member = next((one for one in link.members if one.suid == disk.suid), None) if link else None
    if member is None or member.writable or not member.stamps or link_of(member.chain) is not None:
        raise RefusedError("no image was left that has all of the disk", host=station.host.name)
    if member.size != disk.size or disk.level > 0 or len(member.chain) >= MAX_IMAGES:
        raise RefusedError("the disk has another size or too many images", host=station.host.name)
    member = aside.moved(member, migration)
    await _check(station, member)
    return member


async def _check(station: Station, member: LinkMember) -> None:
    """Raises RefusedError if an image is not what was left."""
    (now,) = await identity.stamped(station.host, (member,))
    if now.stamps != member.stamps:
        what = f"{images(member.chain)[0].path} is not what was left here: {now.stamps}; it was: {member.stamps}"
        raise RefusedError(what, host=station.host.name)


async def _base(station: Station, disk: DiskRecord, fork: Fork) -> tuple[Image, ...]:
    """The images under the names by which they stay. A kill after it leaves a second name, which is found again."""
    # Filling may have taken long.
    await _check(station, fork.member)
    left, *below = images(fork.member.chain)
    assert station.record.migration is not None
    kept = Image(aside.name_base(left.path, station.record.migration), left.format, left.direct)
    note = {"what": f"part of a disk of {station.record.name}", "suid": disk.suid, "below": images(disk.chain)[0].path}
    await files.write(station.host, aside.tombstone(kept.path), f"{json.dumps(note, indent=2)}\n".encode())
    await files.link(station.host, left.path, kept.path)
    return (kept, *below)


async def _rebase(station: Station, disk: DiskRecord, base: tuple[Image, ...]) -> None:
    """The old image is below the overlay, in the graph and in its header, and the link is not. Done already is fine."""
    qemu, overlay, below = station.qemu, names.overlay(disk.suid), names.base(disk.suid)
    await windows.close_sides(qemu, disk.suid)
    if below not in await blockdev.names(qemu):
        await blockdev.add_all(qemu, nodes.whole(below, base))
    node = overlays.overlay(disk.suid, images(disk.chain)[0], below)
    await blockdev.reopen(qemu, {**node, "file": names.file(disk.suid)})
    await jobs.write_backing(qemu, names.header_job(disk.suid), overlay, below, base[0].path)
    await blockdev.drop(qemu, names.remote(disk.suid))
