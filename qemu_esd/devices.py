"""Devices that look shared: make one before any guest exists, look at it, move its authority, remove it."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from qemu_esd import nbd
from qemu_esd.errors import EsdError, HostError, QemuGoneError, RefusedError, UnfinishedError, UsageError
from qemu_esd.graph import device as graphs
from qemu_esd.hosts import facts, files, qemu_img, service
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts, check_host_name
from qemu_esd.journal import claims, devices
from qemu_esd.model import device
from qemu_esd.model.device import DeviceRecord, Seat
from qemu_esd.model.disk import Image, images
from qemu_esd.model.plan import Site
from qemu_esd.model.policy import Handler
from qemu_esd.model.request import DEFAULT_PORTS
from qemu_esd.model.suid import MAX_LENGTH
from qemu_esd.phases import device_clients, device_daemons, device_move, device_records, device_settle, device_windows
from qemu_esd.phases.context import Monitors
from qemu_esd.phases.device_clients import Client
from qemu_esd.phases.device_daemons import FACE, GATE, Crew

_SUID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_LENGTH - 1}}}")
POLICIES = (Handler.ON_DEMAND, Handler.BACKGROUND, Handler.REDIRECT)


@dataclass(frozen=True)
class Wanted:
    """A device to be made. `chain`: images that are there, on the first of `hosts`, top first; none: a new raw image of
    `size` bytes."""

    suid: str
    hosts: tuple[str, ...]
    size: int
    chain: tuple[Image, ...] = ()
    policy: Handler = Handler.BACKGROUND
    owner: str = ""
    ports: range = DEFAULT_PORTS


def check_suid(suid: str) -> str:
    """Raises UsageError for what cannot be a serial number, a file name and a part of a node's name."""
    if not _SUID.fullmatch(suid):
        hint = f"use 1 to {MAX_LENGTH} of A-Z a-z 0-9 _ . - and begin with a letter or a digit"
        raise UsageError(f"{suid!r} cannot be the SUID of a device", hint=hint)
    return suid


def check_policy(handler: Handler) -> Handler:
    if handler not in POLICIES:
        raise UsageError(f"a device has no policy {handler}", hint=f"choose one of {', '.join(POLICIES)}")
    return handler


def check_owner(text: str) -> str:
    """Raises UsageError."""
    if text and not re.fullmatch(r"\d+:\d+", text):
        raise UsageError(f"{text!r} is not a user and a group in numbers", hint="--owner 64055:64055")
    return text


def new_suid() -> str:
    return f"esd{secrets.token_hex(8)}"


async def create(crew: Crew, wanted: Wanted) -> DeviceRecord:
    """Raises RefusedError before anything is touched. A kill in the middle: `device delete` removes what is there."""
    hosts = await check_new(crew, wanted)
    with claims.opened() as taken:
        record = await _decided(hosts, wanted, taken)
        # A kill from here on: the controller knows that there is something, and where.
        devices.remember(record.suid, record.hosts)
        try:
            await _make(crew, record)
        except BaseException:
            await _remove(crew, record, keep_image=record.borrowed)
            raise
    return record


async def check_new(crew: Crew, wanted: Wanted) -> tuple[Host, ...]:
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


async def _check_hosts(hosts: Sequence[Host], wanted: Wanted) -> None:
    for host in hosts:
        here = await facts.look(host)
        missing = {"qemu-storage-daemon", "qemu-img", "perl", "ss"} - here.programs
        if missing:
            what = f"there is no {min(missing)}"
            raise RefusedError(what, host=host.name, hint="apt-get install qemu-system-common qemu-utils perl iproute2")
        if here.paths.run != (await facts.look(hosts[0])).paths.run:
            what = "its folders are not those of the other hosts, so the device would have another name there"
            raise RefusedError(what, host=host.name, hint="be root on all of them, or the same user")
        present = await files.existing(host, device.state_folder(here.paths, wanted.suid))
        if present:
            what = f"there is a device {wanted.suid} already"
            raise RefusedError(what, host=host.name, hint=f"qemu-esd device show {wanted.suid} --host {host.name}")


async def _decided(hosts: Sequence[Host], wanted: Wanted, taken: claims.Claims) -> DeviceRecord:
    first = (await facts.look(hosts[0])).paths
    chain = wanted.chain or (Image(device.member_path(first, wanted.suid, 0, "raw"), "raw"),)
    seats = tuple([await _seat(host, hosts, wanted.ports, taken) for host in hosts])
    return DeviceRecord(
        suid=wanted.suid,
        size=wanted.size,
        generation=1,
        seats=seats,
        authority=hosts[0].name,
        chain=chain,
        policy=wanted.policy,
        borrowed=bool(wanted.chain),
        owner=wanted.owner,
    )


async def _seat(host: Host, hosts: Sequence[Host], ports: range, taken: claims.Claims) -> Seat:
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


async def _make(crew: Crew, record: DeviceRecord) -> None:
    key = secrets.token_hex(32)
    for seat in record.seats:
        host = await crew.hosts.get(seat.host)
        await device_daemons.make_folders(host, seat, record.suid, key)
        await device_records.write(host, seat.paths, record)
    if not record.borrowed:
        host = await crew.hosts.get(record.authority)
        await qemu_img.create_raw(host, record.top.path, record.size)
    await device_daemons.apply(crew, record)


async def find(crew: Crew, suid: str, host: str | None = None) -> DeviceRecord:
    """Raises RefusedError for a device that nobody knows, HostError where nobody who does answers."""
    check_suid(suid)
    names = (host,) if host else devices.hosts_of(suid)
    record, silent = await device_records.newest(crew.hosts, names, suid)
    if record is None:
        if silent:
            raise silent[0]
        raise RefusedError(f"there is no device {suid}", hint="qemu-esd device list; on other hosts: --host HOST")
    devices.remember(suid, record.hosts)
    return record


async def held(crew: Crew, suid: str, host: str | None) -> DeviceRecord:
    """The record, for whoever changes something: all hosts have been asked, and no other command changes it meanwhile.

    Raises HostError for a host that does not answer (it may know better), MonitorBusyError while somebody is at work.
    """
    before = None
    while True:
        record = await find(crew, suid, host)
        _, silent = await device_records.newest(crew.hosts, record.hosts, suid)
        if silent:
            raise silent[0]
        # Who was quicker has changed what we have read before we held it.
        if record == before:
            return record
        await crew.face(record, record.authority)
        before = record


@dataclass(frozen=True)
class Place:
    """A device on one of its hosts. `role`: authority, behind, forwards; `face` and `gate`: running, ended, gone."""

    host: str
    role: str
    face: str
    gate: str
    clients: tuple[Client, ...]
    knows: int | None
    error: str | None = None


@dataclass(frozen=True)
class View:
    """A device as it is now. `remote` is how many bytes the authority still reads from the host before it; None: it was
    not to be asked."""

    record: DeviceRecord
    places: tuple[Place, ...]
    remote: int | None

    @property
    def is_broken_off(self) -> bool:
        """Whether its hosts do not all know the same, or a move has not come to its end."""
        knows = {place.knows for place in self.places if place.error is None}
        return self.record.move is not None or knows != {self.record.generation}


async def guest_words(crew: Crew, suid: str, host: str) -> tuple[str, ...]:
    """The words of a bare QEMU on `host` for a disk on the device."""
    record = await find(crew, suid, None if devices.hosts_of(suid) else host)
    if host not in record.hosts:
        raise UsageError(f"{suid} is not on {host}", hint=f"its hosts are {', '.join(record.hosts)}")
    return graphs.guest_words(record, record.seat(host))


async def look(crew: Crew, suid: str, host: str | None = None) -> View:
    record = await find(crew, suid, host)
    places = await asyncio.gather(*(_place(crew, record, seat) for seat in record.seats))
    return View(record, tuple(places), await _remote(crew, record))


async def _place(crew: Crew, record: DeviceRecord, seat: Seat) -> Place:
    role = "authority" if seat.host == record.authority else "forwards"
    if record.behind is not None and seat.host == record.behind.host:
        role = "behind"
    try:
        host = await crew.hosts.get(seat.host)
        known = await device_records.on(host, seat.paths, record.suid)
        face, gate = [
            await service.state(host, seat.paths.unit(device.unit(part, record.suid)), device.unit(part, record.suid))
            for part in (FACE, GATE)
        ]
        users = await device_clients.clients(host, device.socket(seat.paths, record.suid))
    except HostError as error:
        return Place(seat.host, role, "unknown", "unknown", (), None, error.what)
    return Place(seat.host, role, face, gate, users, known.generation if known else None)


async def _remote(crew: Crew, record: DeviceRecord) -> int | None:
    if record.is_whole:
        return 0
    try:
        told = await device_windows.residency(await crew.hosts.get(record.authority), record)
    except (EsdError, OSError):
        return None
    return sum(one.length for one in told.where(nbd.Where.REMOTE))


async def list_all(crew: Crew, names: Sequence[str]) -> tuple[tuple[DeviceRecord, ...], tuple[HostError, ...]]:
    """The devices of these hosts, or of those that this controller knows; and which hosts do not answer."""
    known = devices.everything()
    ask = list(dict.fromkeys(names or [name for hosts in known.values() for name in hosts]))
    found: dict[str, DeviceRecord] = {}
    silent = []
    for name in ask:
        try:
            for record in await device_records.all_on(await crew.hosts.get(name)):
                if record.suid not in found or found[record.suid].generation < record.generation:
                    found[record.suid] = record
        except HostError as error:
            silent.append(error)
    return tuple(found[suid] for suid in sorted(found)), tuple(silent)


async def move(crew: Crew, suid: str, target: str, handler: Handler | None, host: str | None = None) -> DeviceRecord:
    """Give the authority to `target`; or go on with, or call off, a move that was broken off."""
    record = await held(crew, suid, host)
    if target not in record.hosts:
        hint = f"its hosts are {', '.join(record.hosts)}"
        raise UsageError(f"{suid} is not on {target}", hint=hint)
    if record.move is not None and target == record.authority:
        return await device_move.call_off(crew, record)
    if record.move is not None and record.move.target != target:
        what = f"{suid} is about to move to {record.move.target}"
        raise RefusedError(what, hint=f"qemu-esd device move {suid} {record.move.target}")
    if target == record.authority:
        # Nothing to be done, or the last steps of it.
        await device_daemons.apply(crew, record)
        return record
    if record.move is None and not record.is_whole:
        assert record.behind is not None
        what = f"{suid} still reads from {record.behind.host}"
        raise RefusedError(what, host=record.authority, hint=f"qemu-esd device settle {suid}")
    return await device_move.move(crew, record, target, check_policy(handler or record.policy))


async def follow(suid: str, seconds: float, on_move: Callable[[str], None], host: str | None = None) -> None:
    """Whenever the device is used on another host, and on no other, its authority goes there by its policy. For ever.

    A look that fails counts as none: hosts come back. It may end at any moment: then all is forwarded, and right.
    """
    async with opened() as crew:
        await find(crew, suid, host)
    before: tuple[str, ...] = ()
    while True:
        with suppress(RefusedError, QemuGoneError, UnfinishedError):
            before = await _follow_once(suid, before, on_move, host)
        await asyncio.sleep(seconds)


async def _follow_once(
    suid: str, before: tuple[str, ...], on_move: Callable[[str], None], host: str | None
) -> tuple[str, ...]:
    """Where it is used now. Once is not enough: a guest that is being moved is there and here."""
    async with opened() as crew:
        record = await find(crew, suid, host)
        used = await device_move.used_at(crew, record)
        wanted = record.move.target if record.move else used[0] if len(used) == 1 and used == before else None
        if wanted is not None and wanted != record.authority:
            if not record.is_whole:
                await settle(crew, suid, lambda *_: None, host)
            record = await move(crew, suid, wanted, None, host)
            on_move(wanted)
        if record.handler is Handler.BACKGROUND:
            await settle(crew, suid, lambda *_: None, host)
        return used


async def settle(crew: Crew, suid: str, on_bytes: device_settle.OnBytes, host: str | None = None) -> DeviceRecord:
    return await device_settle.settle(crew, await held(crew, suid, host), on_bytes)


async def release(crew: Crew, suid: str, host: str | None = None) -> DeviceRecord:
    """Raises RefusedError while former hosts are still needed."""
    record = await held(crew, suid, host)
    if record.behind is not None:
        what = f"{suid} still reads from {record.behind.host}"
        raise RefusedError(what, host=record.authority, hint=f"qemu-esd device settle {suid}")
    return await device_settle.release(crew, record)


async def restore(crew: Crew, suid: str, host: str | None = None) -> DeviceRecord:
    """Make all of it run again as its record says: after a reboot, or a command that was broken off."""
    record = await find(crew, suid, host)
    _, silent = await device_records.newest(crew.hosts, record.hosts, suid)
    if silent:
        raise silent[0]
    await device_daemons.apply(crew, record)
    return record


async def delete(crew: Crew, suid: str, host: str | None = None, *, keep_image: bool = False) -> DeviceRecord:
    """The device is gone, with the images that we have made; with `keep_image` those that have its data now stay, to be
    used without it. Raises RefusedError while somebody uses it."""
    record = await find(crew, suid, host)
    for seat in record.seats:
        there = await crew.hosts.get(seat.host)
        if users := await device_clients.clients(there, device.socket(seat.paths, suid)):
            what = f"{suid} is used there by {users[0].program} (pid {users[0].pid})"
            raise RefusedError(what, host=seat.host, hint="end it, or take the disk out of it")
    await _remove(crew, record, keep_image=keep_image)
    return record


async def _remove(crew: Crew, record: DeviceRecord, *, keep_image: bool) -> None:
    """Those that forward first: at each moment of it what is left is a device, and can be deleted again."""
    suid = record.suid
    ordered = sorted(record.seats, key=lambda seat: seat.host == record.authority)
    for seat in ordered:
        await device_daemons.remove_from(await crew.hosts.get(seat.host), seat, suid)
        kept = {image.path for image in images(record.chain)} if keep_image and seat.host == record.authority else set()
        await _remove_images(crew, record, seat, kept)
    if keep_image and record.is_whole and device.is_ours(record.seat(record.authority).paths, record.top):
        await qemu_img.forget_backing(await crew.hosts.get(record.authority), record.top.path)
    devices.forget(suid)


async def _remove_images(crew: Crew, record: DeviceRecord, seat: Seat, kept: Collection[str]) -> None:
    """What we have made of it on a host."""
    host = await crew.hosts.get(seat.host)
    folder = f"{seat.paths.state}/disks"
    for name in await files.listing(host, folder):
        if (
            re.fullmatch(rf"{re.escape(record.suid)}\.d\d+\.(raw|qcow2)(\.new|\.moved-[0-9a-f]{{8}})?", name)
            and f"{folder}/{name}" not in kept
        ):
            await files.remove(host, f"{folder}/{name}")


@asynccontextmanager
async def opened() -> AsyncIterator[Crew]:
    """Hosts and monitors of one command."""
    async with AsyncExitStack() as stack:
        hosts = Hosts(stack)
        yield Crew(hosts, Monitors(hosts, stack))
