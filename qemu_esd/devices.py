"""Devices that look shared: make one before any guest exists, look at it, move its authority, remove it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress

from qemu_esd.errors import (
    EsdError,
    HostError,
    RefusedError,
    TimedOutError,
    UnfinishedError,
    UsageError,
)
from qemu_esd.graph import device_argv
from qemu_esd.hosts.connect import Hosts
from qemu_esd.journal import claims, devices
from qemu_esd.model import device
from qemu_esd.model.device import DeviceRecord
from qemu_esd.model.device_request import DeviceRequest, check_policy, check_suid
from qemu_esd.model.policy import Handler
from qemu_esd.phases import (
    device_clients,
    device_daemons,
    device_look,
    device_make,
    device_move,
    device_records,
    device_settle,
    device_units,
)
from qemu_esd.phases.context import Monitors
from qemu_esd.phases.device_daemons import Crew
from qemu_esd.phases.device_look import View
from qemu_esd.view import DiskMap, DiskView

# A device that has not told everything by then counts as one that cannot be looked at.
LOOK_SECONDS = 40.0


@asynccontextmanager
async def opened() -> AsyncIterator[Crew]:
    """Hosts and monitors of one command."""
    async with AsyncExitStack() as stack:
        hosts = Hosts(stack)
        yield Crew(hosts, Monitors(hosts, stack))


async def create(crew: Crew, wanted: DeviceRequest) -> DeviceRecord:
    """Raises RefusedError before anything is touched. A kill in the middle: `device delete` removes what is there."""
    hosts = await device_make.check(crew, wanted)
    with claims.opened() as taken:
        record = await device_make.decided(hosts, wanted, taken)
        # A kill from here on: the controller knows that there is something, and where.
        devices.remember(record.suid, record.hosts)
        await device_make.claim(crew, record)
        try:
            record = await device_make.make(crew, record)
        except BaseException:
            await device_make.remove(crew, record, keep_image=record.borrowed)
            devices.forget(record.suid)
            raise
    # Again: who looked for it before it was anywhere has forgotten it.
    devices.remember(record.suid, record.hosts)
    return record


async def find(crew: Crew, suid: str, host: str | None = None) -> DeviceRecord:
    """Raises RefusedError for a device that nobody knows, HostError where nobody who does answers."""
    check_suid(suid)
    names = (host,) if host else devices.hosts_of(suid)
    record, silent = await device_records.newest(crew.hosts, names, suid)
    if record is None:
        if silent:
            raise silent[0]
        devices.forget(suid)
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
        _check_made(record)
        # Who was quicker has changed what we have read before we held it.
        if record == before:
            return record
        await crew.face(record, record.authority)
        before = record


def _check_made(record: DeviceRecord) -> None:
    """Raises RefusedError."""
    if record.is_being_made:
        what = f"{record.suid} is being made, or that was broken off"
        raise RefusedError(what, hint=f"if nobody is at work on it: qemu-esd device delete {record.suid}")


async def guest_words(crew: Crew, suid: str, host: str) -> tuple[str, ...]:
    """The words of a bare QEMU on `host` for a disk on the device."""
    record = await find(crew, suid, None if devices.hosts_of(suid) else host)
    if host not in record.hosts:
        raise UsageError(f"{suid} is not on {host}", hint=f"its hosts are {', '.join(record.hosts)}")
    _check_made(record)
    return device_argv.guest_words(record, record.seat(host))


async def look(crew: Crew, suid: str, host: str | None = None) -> View:
    return await device_look.look(crew, await find(crew, suid, host))


def map_of(view: View) -> DiskMap:
    """Where its bytes are, as the disk of a guest's is told."""
    record, size, remote = view.record, view.record.size, view.remote
    local = view.residency.local_bytes if view.residency else size if record.is_whole else None
    handler = record.handler or "local"
    told = DiskView(record.suid, record.suid, handler, "local", size, local, remote, needs_source=not record.is_whole)
    return DiskMap(told, view.residency)


async def look_around() -> tuple[View | EsdError, ...]:
    """All that this controller knows, by name, side by side; or what hindered."""

    async def each(crew: Crew, suid: str) -> View | EsdError:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await look(crew, suid)
        except TimeoutError:
            return TimedOutError(f"a look at the device {suid}", LOOK_SECONDS)
        except EsdError as error:
            return error

    async with opened() as crew:
        return tuple(await asyncio.gather(*(each(crew, suid) for suid in devices.everything())))


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
    if record.move is None and record.kept_on(target):
        what = f"{suid} still reads from {target}, so it cannot go back there yet"
        hint = f"qemu-esd device settle {suid} && qemu-esd device move {suid} {target}"
        raise RefusedError(what, host=record.authority, hint=hint)
    with _going_on(f"qemu-esd device move {suid} {target}"):
        if target != record.authority:
            return await device_move.move(crew, record, target, check_policy(handler or record.policy))
        # Nothing to be done, or the last steps of it.
        await device_daemons.apply(crew, record)
        return record


@contextmanager
def _going_on(command: str) -> Iterator[None]:
    """What is broken off in here goes on by `command`."""
    try:
        yield
    except EsdError as error:
        if error.hint and not isinstance(error, HostError):
            raise
        raise UnfinishedError(str(error), hint=command) from error


async def follow(
    suid: str, seconds: float, on_move: Callable[[str], None], host: str | None = None, limit: int = 0
) -> None:
    """Whenever the device is used on another host, and on no other, its authority goes there by its policy. For ever.

    A look that fails counts as none: hosts come back. It may end at any moment: then all is forwarded, and right.
    """
    async with opened() as crew:
        await find(crew, suid, host)
    before: tuple[str, ...] = ()
    while True:
        with suppress(EsdError):
            async with opened() as crew:
                before = await _follow_once(crew, suid, before, on_move, host, limit)
        await asyncio.sleep(seconds)


async def _follow_once(
    crew: Crew, suid: str, before: tuple[str, ...], on_move: Callable[[str], None], host: str | None, limit: int
) -> tuple[str, ...]:
    """Where it is used now. Once is not enough: a guest that is being moved is there and here."""
    record = await find(crew, suid, host)
    used = await device_move.used_at(crew, record)
    wanted = record.move.target if record.move else used[0] if len(used) == 1 and used == before else None
    if wanted is not None and wanted != record.authority:
        if record.kept_on(wanted):
            await settle(crew, suid, lambda *_: None, host, limit)
        record = await move(crew, suid, wanted, None, host)
        on_move(wanted)
    if record.handler is Handler.BACKGROUND:
        await settle(crew, suid, lambda *_: None, host, limit)
    return used


async def settle(
    crew: Crew, suid: str, on_bytes: device_settle.OnBytes, host: str | None = None, limit: int = 0
) -> DeviceRecord:
    """All data comes to where the authority is, at `limit` bytes/s at most; 0: no limit."""
    record = await held(crew, suid, host)
    with _going_on(f"qemu-esd device settle {suid}"):
        return await device_settle.settle(crew, record, on_bytes, limit)


async def release(crew: Crew, suid: str, host: str | None = None) -> DeviceRecord:
    """Raises RefusedError while former hosts are still needed."""
    record = await held(crew, suid, host)
    if record.behind is not None:
        what = f"{suid} still reads from {record.behind.host}"
        raise RefusedError(what, host=record.authority, hint=f"qemu-esd device settle {suid}")
    return await device_settle.release(crew, record)


async def restore(crew: Crew, suid: str, host: str | None = None) -> DeviceRecord:
    """Make all of it run again as its record says: after a reboot, or a command that was broken off.

    What does not run is started first: only by the authority's path handler is it seen that nobody else is at work. It
    needs the one that it reads from.
    """
    record = await find(crew, suid, host)
    _, silent = await device_records.newest(crew.hosts, record.hosts, suid)
    if silent:
        raise silent[0]
    _check_made(record)
    for name in (*reversed(record.holders), *record.others):
        await device_units.start_missing(await crew.hosts.get(name), record, record.seat(name))
    record = await held(crew, suid, host)
    await device_daemons.apply(crew, record)
    return record


async def delete(crew: Crew, suid: str, host: str | None = None, *, keep_image: bool = False) -> DeviceRecord:
    """The device is gone, with the images that we have made; with `keep_image` those that have its data now stay, to be
    used without it. Raises RefusedError while somebody uses it."""
    record = await find(crew, suid, host)
    for seat in await device_make.seats_of(crew, record):
        there = await crew.hosts.get(seat.host)
        if users := await device_clients.clients(there, device.socket(seat.paths, suid)):
            what = f"{suid} is used there by {users[0].program} (pid {users[0].pid})"
            raise RefusedError(what, host=seat.host, hint="end it, or take the disk out of it")
    await device_make.remove(crew, record, keep_image=keep_image or (record.is_being_made and record.borrowed))
    devices.forget(suid)
    return record
