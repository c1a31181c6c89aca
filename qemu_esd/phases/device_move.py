"""The authority of a device goes to another host, under whatever uses it there.

    said      the move is in the record of both hosts
    shut      on the old host nobody may write but the new one: no guest has it open there (asked and done in one step),
              and all other hosts are shut out at its gate
    taken     the new host's record says that it has the authority; then its path handler, and nobody else, writes
              here: what was under way has reached the old host by then
    told      the old host serves what it has to be read only, and forwards all else to the new one

A kill before `taken`: the old host has the authority, and the new one forwards to it. After it: the new one has it, and
as long as its path handler still forwards, the old one takes that. The same command again goes on.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

from qemu_esd.errors import RefusedError
from qemu_esd.graph import device as graphs
from qemu_esd.graph import names
from qemu_esd.graph.handlers import HANDLERS
from qemu_esd.hosts import files, qemu_img
from qemu_esd.log import step
from qemu_esd.model import device
from qemu_esd.model.device import Behind, DeviceRecord, Move
from qemu_esd.model.disk import Image, Link
from qemu_esd.model.policy import Handler
from qemu_esd.phases import device_daemons
from qemu_esd.phases.device_clients import clients
from qemu_esd.phases.device_daemons import Crew
from qemu_esd.qmp import exports

# Of a guest whose blocks are larger nothing would be lost: an overlay's clusters are what they are for all.
BLOCK = 512


def said(record: DeviceRecord, target: str, handler: Handler) -> DeviceRecord:
    """The record of a move that is about to be made."""
    id, paths = secrets.token_hex(4), record.seat(target).paths
    path = device.member_path(paths, record.suid, record.generation + 1, "qcow2")
    member = Image(path, "qcow2", record.top.direct)
    move = Move(id, target, member, handler, f"esd-{secrets.token_hex(16)}")
    return replace(record, move=move, generation=record.generation + 1)


def taken(record: DeviceRecord) -> DeviceRecord:
    """The record once the authority has moved."""
    move = record.move
    assert move is not None
    here, there = record.seat(move.target), record.seat(record.authority)
    link = Link(graphs.gate_of(there, here, record.suid), move.export)
    behind = Behind(move.id, record.authority, record.chain, move.export)
    return replace(
        record,
        generation=record.generation + 1,
        authority=move.target,
        chain=(move.member, link),
        handler=move.handler,
        behind=behind,
        beyond=record.kept,
        move=None,
        term=record.term + 1,
    )


def called_off(record: DeviceRecord) -> DeviceRecord:
    """The record of a move that was not made."""
    return replace(record, move=None, generation=record.generation + 1)


@step
async def move(crew: Crew, record: DeviceRecord, target: str, handler: Handler) -> DeviceRecord:
    """Returns the record when the authority is at `target` and all hosts know it.

    Raises RefusedError, with nothing changed, while the device is used on another host.
    """
    await crew.face(record, record.authority)
    if record.move is None:
        await check_unused(crew, record, target)
        record = said(record, target, handler)
    await device_daemons.apply_on(crew, record, record.seat(target))
    record = await _shut(crew, record)
    await _make_member(crew, record)
    record = taken(record)
    await device_daemons.apply(crew, record)
    return record


async def check_unused(crew: Crew, record: DeviceRecord, target: str) -> None:
    """Raises RefusedError if a program uses the device on any host but `target`."""
    for seat in record.seats:
        if seat.host == target:
            continue
        host = await crew.hosts.get(seat.host)
        if users := await clients(host, device.socket(seat.paths, record.suid)):
            raise in_use(record, seat.host, f"{users[0].program} (pid {users[0].pid})")


def in_use(record: DeviceRecord, host: str, who: str) -> RefusedError:
    what = f"{record.suid} is used there by {who}"
    hint = "let the guest move first (virsh migrate, or its like), or move the device to where it is used"
    return RefusedError(what, host=host, hint=hint)


async def _shut(crew: Crew, record: DeviceRecord) -> DeviceRecord:
    """Only the new host may write through the old one any more. Raises RefusedError if a guest has just come."""
    id = names.export_id(record.suid, "local")
    others = [seat for seat in record.seats if record.move and seat.host != record.move.target]
    for seat in sorted(others, key=lambda seat: seat.host == record.authority):
        face = await crew.face(record, seat.host)
        if id in await exports.ids(face) and not await exports.delete_unused(face, id):
            await call_off(crew, record)
            raise in_use(record, seat.host, "a program that came just now")
    await device_daemons.apply_on(crew, record, record.seat(record.authority))
    return record


async def _make_member(crew: Crew, record: DeviceRecord) -> None:
    """The empty overlay. One that is there is left as it is: if ever a record were lost, its data would not be."""
    assert record.move is not None
    path, options = record.move.member.path, HANDLERS[record.move.handler].overlay_options(BLOCK)
    host = await crew.hosts.get(record.move.target)
    if path not in await files.existing(host, path):
        await qemu_img.create_overlay(host, f"{path}.new", record.size, options)
        await files.rename(host, f"{path}.new", path)


async def call_off(crew: Crew, record: DeviceRecord) -> DeviceRecord:
    """A move that was broken off before the authority has moved is not made."""
    move = record.move
    assert move is not None
    record = called_off(record)
    await device_daemons.apply(crew, record)
    await files.remove(await crew.hosts.get(move.target), move.member.path)
    return record


async def used_at(crew: Crew, record: DeviceRecord) -> tuple[str, ...]:
    """The hosts on which a program uses the device."""

    async def used(host: str) -> bool:
        seat = record.seat(host)
        return bool(await clients(await crew.hosts.get(host), device.socket(seat.paths, record.suid)))

    told = await asyncio.gather(*(used(host) for host in record.hosts))
    return tuple(host for host, is_used in zip(record.hosts, told, strict=True) if is_used)
