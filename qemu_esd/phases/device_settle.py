"""All data of a device comes to the host that has the authority; then nothing depends on the hosts before it.

copied → proven by the maps → detached → flushed → written down → only then does the former host give its image up. A
kill anywhere: the same again goes on from what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from qemu_esd import nbd
from qemu_esd.errors import EsdError, UnfinishedError
from qemu_esd.graph import names
from qemu_esd.graph.handlers import overlays
from qemu_esd.hosts import files
from qemu_esd.hosts.base import Host
from qemu_esd.log import step
from qemu_esd.model.device import DeviceRecord, Left
from qemu_esd.model.disk import images
from qemu_esd.model.policy import Handler
from qemu_esd.phases import device_daemons, device_records, device_windows
from qemu_esd.phases.device_daemons import Crew
from qemu_esd.phases.pace import Throttle
from qemu_esd.qmp import blockdev
from qemu_esd.qmp.session import Session

CHUNK = 4 << 20
# Under a limit: a guest's reads wait behind one of them at most.
PACED_CHUNK = 1 << 20
# Passes that bring nothing nearer before we call it stuck.
FRUITLESS = 3
# Nothing has come for so long: look again at what is left. That a way is dead between two other hosts is no error here:
# on a read that fails QEMU's server hangs up, and its client comes back and asks again (7.2.22).
SILENT_SECONDS = 30.0

OnBytes = Callable[[int, int], None]


@step
async def settle(crew: Crew, record: DeviceRecord, on_bytes: OnBytes, limit: int = 0) -> DeviceRecord:
    """At `limit` bytes/s at most, 0: none. Settled already is fine.

    Raises UnfinishedError when something cannot be read; what is here stays.
    """
    face = await crew.face(record, record.authority)
    if not record.is_whole:
        record = await _keeping_reads(crew, record)
        await _bring_all(await crew.hosts.get(record.authority), record, on_bytes, limit)
        await _detach(face, record)
        await _flush(await crew.hosts.get(record.authority), record)
        record = whole(record)
    # Also where it is whole already: one that was killed in here has told some of the hosts only.
    await device_daemons.apply(crew, record)
    await _put_aside(crew, record)
    return record


async def _keeping_reads(crew: Crew, record: DeviceRecord) -> DeviceRecord:
    """A device that is redirected gets a filter by which what is read stays."""
    if record.handler is not None and record.handler.keeps_reads:
        return record
    record = replace(record, handler=Handler.ON_DEMAND, generation=record.generation + 1)
    await device_daemons.apply_on(crew, record, record.seat(record.authority))
    return record


async def _bring_all(host: Host, record: DeviceRecord, on_bytes: OnBytes, limit: int) -> None:
    try:
        await bring(host, record, on_bytes, limit)
    except (nbd.NbdClientError, ConnectionError) as error:
        what = f"{record.suid} is not whole on {record.authority} yet: {error}"
        raise UnfinishedError(what, host=host.name, hint=_again(record)) from error


async def bring(host: Host, record: DeviceRecord, on_bytes: OnBytes, limit: int = 0) -> None:
    """Fill what is missing, until the maps prove that nothing is but holes."""
    fruitless, before, throttle = 0, record.size + 1, Throttle(limit)
    while left := (await device_windows.residency(host, record)).where(nbd.Where.REMOTE):
        now = sum(one.length for one in left)
        fruitless = 0 if now < before else fruitless + 1
        if fruitless == FRUITLESS:
            raise _stuck(record, now)
        before = now
        on_bytes(record.size - now, record.size)
        with suppress(TimeoutError):
            await _fill(host, record, left, throttle)
    on_bytes(record.size, record.size)


async def _fill(host: Host, record: DeviceRecord, left: Iterable[nbd.Range], throttle: Throttle) -> None:
    """Raises TimeoutError."""
    clock = asyncio.get_running_loop().time

    def wait_until(when: float | None) -> None:
        if not patience.expired():
            patience.reschedule(when)

    async with asyncio.timeout(SILENT_SECONDS) as patience, device_windows.filling(host, record) as client:

        async def admit(length: int) -> None:
            wait_until(None)
            await throttle.admit(length)
            wait_until(clock() + SILENT_SECONDS)

        await nbd.fill(client, left, chunk=PACED_CHUNK if throttle.speed else CHUNK, admit=admit)


def _stuck(record: DeviceRecord, left: int) -> UnfinishedError:
    what = f"{left} bytes of {record.suid} cannot be brought over"
    return UnfinishedError(what, host=record.authority, hint=_again(record))


def _again(record: DeviceRecord) -> str:
    hosts = " and ".join(kept.host for kept in record.kept)
    return f"see that {hosts} can be reached, then: qemu-esd device settle {record.suid}"


async def _detach(face: Session, record: DeviceRecord) -> None:
    """Of the backing nothing but holes is still seen. The image's header names it until the device is deleted: only a
    node above all others may be asked to change that (QEMU), and a path handler never goes by it."""
    suid, name = record.suid, names.overlay(record.suid)
    if await blockdev.has_backing(face, name):
        top = overlays.overlay(suid, record.top, None)
        await blockdev.reopen(face, {**top, "file": names.file(suid)})
    if await blockdev.has_backing(face, name):
        raise EsdError(f"{suid} still has a backing after its detach", host=record.authority)


async def _flush(host: Host, record: DeviceRecord) -> None:
    async with device_windows.look(host, record) as here:
        await here.flush()


def whole(record: DeviceRecord) -> DeviceRecord:
    """The record once nothing of it is elsewhere."""
    tops = [(kept, images(kept.chain)[0]) for kept in record.kept]
    left = tuple(Left(kept.host, image.path, f"{image.path}.moved-{kept.move}") for kept, image in tops)
    return replace(
        record,
        generation=record.generation + 1,
        chain=images(record.chain),
        handler=None,
        behind=None,
        beyond=(),
        left=record.left + left,
    )


async def _put_aside(crew: Crew, record: DeviceRecord) -> None:
    """By its old name nothing finds it any more. A kill before this: `settle`, or `release`, comes here again."""
    for one in record.left:
        host = await crew.hosts.get(one.host)
        if one.path in await files.existing(host, one.path):
            await files.rename(host, one.path, one.aside)


@step
async def release(crew: Crew, record: DeviceRecord) -> DeviceRecord:
    """Delete what former hosts have put aside."""
    # A `settle` that was killed has told some of the hosts only that nobody reads those images any more.
    await device_daemons.apply(crew, record)
    await _put_aside(crew, record)
    for one in record.left:
        await files.remove(await crew.hosts.get(one.host), one.aside)
    record = replace(record, left=(), generation=record.generation + 1)
    for seat in record.seats:
        await device_records.write(await crew.hosts.get(seat.host), seat.paths, record)
    return record
