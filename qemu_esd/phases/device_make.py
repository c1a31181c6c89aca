"""A device comes into being on its hosts, and goes: what is seen to be wrong first, what is decided, what is made."""

from __future__ import annotations

import asyncio
import re
import secrets
import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace

from qemu_esd.errors import RefusedError, UsageError
from qemu_esd.hosts import facts, files, qemu_img
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import check_host_name
from qemu_esd.journal.claims import Claims
from qemu_esd.model import device
from qemu_esd.model.device import DeviceRecord, Seat
from qemu_esd.model.device_request import DeviceRequest, check_suid
from qemu_esd.model.disk import Image, images
from qemu_esd.model.plan import Site
from qemu_esd.phases import device_daemons, device_records, device_units
from qemu_esd.phases.device_daemons import Crew


async def check(crew: Crew, wanted: DeviceRequest) -> tuple[Host, ...]:
    """The hosts, if a device can be made there. Raises RefusedError, UsageError."""
    check_suid(wanted.suid)
    hosts = await _open_all(crew, wanted.hosts)
    await _check_hosts(hosts, wanted)
    return hosts


async def _open_all(crew: Crew, names: Sequence[str]) -> tuple[Host, ...]:
    for name in names:
        check_host_name(name)
    if len(set(names)) != len(names) or not names:
        raise UsageError("a device needs hosts, and each of them once", hint="--host hostA,hostB")
    return tuple(await asyncio.gather(*(crew.hosts.get(name) for name in names)))


async def _check_hosts(hosts: Sequence[Host], wanted: DeviceRequest) -> None:
    for host in hosts:
        here = await facts.look(host)
        missing = {"qemu-storage-daemon", "qemu-img", "perl", "ss"} - here.programs
        if missing:
            what = f"there is no {min(missing)}"
            raise RefusedError(what, host=host.name, hint="apt-get install qemu-system-common qemu-utils perl iproute2")
        if here.paths.run != (await facts.look(hosts[0])).paths.run:
            what = "its folders are not those of the other hosts, so the device would have another name there"
            raise RefusedError(what, host=host.name, hint="be root on all of them, or the same user")
        if (there := await device_records.on(host, here.paths, wanted.suid)) is not None:
            raise already_there(host, there)


def already_there(host: Host, there: DeviceRecord) -> RefusedError:
    """What to say where a device of that SUID is."""
    named = f"{shlex.quote(there.suid)} --host {shlex.quote(host.name)}"
    if there.is_being_made:
        what = f"a device {there.suid} is being made there, or that was broken off"
        return RefusedError(what, host=host.name, hint=f"if nobody is at work on it: qemu-esd device delete {named}")
    what = f"there is a device {there.suid} already"
    return RefusedError(what, host=host.name, hint=f"qemu-esd device show {named}")


async def decided(hosts: Sequence[Host], wanted: DeviceRequest, taken: Claims) -> DeviceRecord:
    first = (await facts.look(hosts[0])).paths
    chain = wanted.chain or (Image(device.member_path(first, wanted.suid, 0, "raw"), "raw"),)
    seats = tuple([await _seat(host, hosts, wanted.ports, taken) for host in hosts])
    return DeviceRecord(
        suid=wanted.suid,
        size=wanted.size,
        generation=0,
        seats=seats,
        authority=hosts[0].name,
        chain=chain,
        policy=wanted.policy,
        borrowed=bool(wanted.chain),
        owner=wanted.owner,
    )


async def _seat(host: Host, hosts: Sequence[Host], ports: range, taken: Claims) -> Seat:
    paths = (await facts.look(host)).paths
    peer = next((other for other in hosts if other is not host), None)
    address = "127.0.0.1" if peer is None else await _address(host, peer)
    used = await facts.ports_in_use(host) | await _promised(host)
    for port in ports:
        if port not in used and taken.take(host.name, port):
            return Seat(Site(host.name, paths, address), port, f"esd-{secrets.token_hex(16)}")
    what = f"no port of {ports.start}-{ports.stop - 1} is free"
    raise RefusedError(what, host=host.name, hint="name others with --ports FIRST-LAST")


async def _address(host: Host, peer: Host) -> str:
    """The address by which `peer` reaches `host`."""
    there = await peer.peer_address()
    if there is None:
        return await facts.address_towards(host, "1.1.1.1")
    return await facts.address_towards(host, there)


async def _promised(host: Host) -> frozenset[int]:
    """Ports that devices of that host will listen on, when it is their turn."""
    records = await device_records.all_on(host)
    return frozenset(seat.port for record in records for seat in record.seats if seat.host == host.name)


async def claim(crew: Crew, record: DeviceRecord) -> None:
    """The record comes first, on all hosts: of two who make a device of one SUID at once one gets all of them, as all
    go from host to host in the same order; and by it `device delete` knows what to remove after a kill.

    Raises RefusedError for who comes second, with nothing left of it.
    """
    try:
        for seat in sorted(record.seats, key=lambda seat: seat.site.address):
            host = await crew.hosts.get(seat.host)
            if not await device_records.write_first(host, seat.paths, record):
                raise already_there(host, await device_records.on(host, seat.paths, record.suid) or record)
    except BaseException:
        await _unclaim(crew, record)
        raise


async def _unclaim(crew: Crew, record: DeviceRecord) -> None:
    for seat in record.seats:
        host = await crew.hosts.get(seat.host)
        there = await device_records.on(host, seat.paths, record.suid)
        if there is not None and there.is_of(record):
            await device_records.remove(host, seat.paths, record.suid)


async def make(crew: Crew, record: DeviceRecord) -> DeviceRecord:
    """What is needed first, so that with the next generation all that is not there can be made by `device restore`."""
    key = secrets.token_hex(32)
    for seat in record.seats:
        await device_units.make_folders(await crew.hosts.get(seat.host), seat, record.suid, key)
    if not record.borrowed:
        host = await crew.hosts.get(record.authority)
        await qemu_img.create_raw(host, record.top.path, record.size)
    record = replace(record, generation=1)
    await device_daemons.apply(crew, record)
    return record


async def seats_of(crew: Crew, record: DeviceRecord) -> tuple[Seat, ...]:
    """All but those on hosts that have another device of the same SUID: one that was made at once, and was quicker."""
    hosts = [await crew.hosts.get(seat.host) for seat in record.seats]
    of_others = [
        await device_records.is_of_another(host, seat.paths, record)
        for host, seat in zip(hosts, record.seats, strict=True)
    ]
    return tuple(seat for seat, is_not_ours in zip(record.seats, of_others, strict=True) if not is_not_ours)


async def remove(crew: Crew, record: DeviceRecord, *, keep_image: bool) -> None:
    """Those that forward first, and on each host the record last: at each moment of it what is left is a device, and
    can be deleted again."""
    for seat in sorted(await seats_of(crew, record), key=lambda seat: seat.host == record.authority):
        host, is_kept = await crew.hosts.get(seat.host), keep_image and seat.host == record.authority
        await device_units.end_on(host, seat, record.suid)
        await _remove_images(host, record, seat, {image.path for image in images(record.chain)} if is_kept else set())
        if is_kept and record.is_whole and device.is_ours(seat.paths, record.top):
            await qemu_img.forget_backing(host, record.top.path)
        await device_records.remove(host, seat.paths, record.suid)


async def _remove_images(host: Host, record: DeviceRecord, seat: Seat, kept: Collection[str]) -> None:
    """What we have made of it on a host."""
    folder = f"{seat.paths.state}/disks"
    for name in await files.listing(host, folder):
        if (
            re.fullmatch(rf"{re.escape(record.suid)}\.d\d+\.(raw|qcow2)(\.new|\.moved-[0-9a-f]{{8}})?", name)
            and f"{folder}/{name}" not in kept
        ):
            await files.remove(host, f"{folder}/{name}")
