"""Make the path handlers of a device what its record says, whatever they are now: started, changed under load, ended.

Each step is written into the `run` of the unit first: whoever is killed and started again, a daemon or we, comes up as
the record says, or as the one before it said, and both are right at that moment.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from qemu_esd.errors import EsdError, QemuError, QemuGoneError
from qemu_esd.graph import device as graphs
from qemu_esd.graph import names
from qemu_esd.graph.device import Graph
from qemu_esd.hosts import service
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts
from qemu_esd.log import step
from qemu_esd.model import device
from qemu_esd.model.device import FACE, GATE, REAR, WATCH, DeviceRecord, Seat
from qemu_esd.phases import device_records, device_units
from qemu_esd.phases.context import Monitors
from qemu_esd.qmp import blockdev, exports
from qemu_esd.qmp.session import Session

BACK_SECONDS = 15.0


@dataclass(frozen=True)
class Crew:
    """Open hosts and monitors of one command."""

    hosts: Hosts
    monitors: Monitors

    async def face(self, record: DeviceRecord, host: str) -> Session:
        """The monitor of a face. Being its client at the authority is the mutex of the device."""
        return await self._daemon(record, host, FACE, f"the path handler of {record.suid}")

    async def gate(self, record: DeviceRecord, host: str) -> Session:
        return await self._daemon(record, host, GATE, f"the gate of {record.suid}")

    async def _daemon(self, record: DeviceRecord, host: str, part: str, label: str) -> Session:
        """One that has been killed is back in a second or two."""
        monitor, deadline = device.monitor(record.seat(host).paths, record.suid, part), time.monotonic() + BACK_SECONDS
        there = await self.hosts.get(host)
        while not await service.listens(there, monitor):
            if time.monotonic() > deadline:
                log = record.seat(host).paths.unit(device.unit(part, record.suid))
                what = f"{label} does not run: {await service.last_words(there, log)}"
                raise QemuGoneError(what, host=host, hint=f"qemu-esd device restore {record.suid}")
            await asyncio.sleep(0.1)
        return await self.monitors.get(host, monitor, label)


@step
async def apply(crew: Crew, record: DeviceRecord) -> None:
    """The authority first: only when it has the device the others are told so.

    A kill in the middle: the hosts say different things, the newest counts, and the same again ends it.
    """
    for host in (*record.holders, *record.others):
        await apply_on(crew, record, record.seat(host))


async def apply_on(crew: Crew, record: DeviceRecord, seat: Seat) -> None:
    host = await crew.hosts.get(seat.host)
    await device_records.write(host, seat.paths, record)
    if seat.host != record.authority:
        await _shed_gate(crew, host, record, seat)
    await _apply_face(crew, host, record, seat)
    await _apply_gate(crew, host, record, seat)
    for part in (WATCH, REAR):
        await _apply_watch(host, record, seat, part)


async def _shed_gate(crew: Crew, host: Host, record: DeviceRecord, seat: Seat) -> None:
    """A gate reads from its face. One whose face has taken that away would wait for it, for as long as its link may."""
    graph = graphs.gate(record, seat)
    if graph is None:
        await device_units.stop(host, seat, record.suid, GATE)
    elif await service.listens(host, device.monitor(seat.paths, record.suid, GATE)):
        await _run(host, record, seat, GATE)
        await _shed(await crew.gate(record, seat.host), graph)


async def _apply_face(crew: Crew, host: Host, record: DeviceRecord, seat: Seat) -> None:
    await _run(host, record, seat, FACE)
    await converge(await crew.face(record, seat.host), record, graphs.face(record, seat))


async def _apply_gate(crew: Crew, host: Host, record: DeviceRecord, seat: Seat) -> None:
    graph = graphs.gate(record, seat)
    if graph is None:
        await device_units.stop(host, seat, record.suid, GATE)
        return
    await _run(host, record, seat, GATE)
    await converge(await crew.gate(record, seat.host), record, graph)


async def _run(host: Host, record: DeviceRecord, seat: Seat, part: str) -> None:
    """The unit of a daemon is there, and the next time it starts as the record says."""
    if await device_units.runs(host, seat, record.suid, part):
        folder = seat.paths.unit(device.unit(part, record.suid))
        await service.rewrite(host, folder, device_units.wanted(record, seat)[part])
    else:
        await device_units.start(host, record, seat, part)


async def _apply_watch(host: Host, record: DeviceRecord, seat: Seat, part: str) -> None:
    """What notices that the way to another host is dead, where this one reads or writes over it."""
    argv = device_units.wanted(record, seat).get(part)
    if argv is None:
        await device_units.stop(host, seat, record.suid, part)
        return
    folder = seat.paths.unit(device.unit(part, record.suid))
    if await device_units.runs(host, seat, record.suid, part) and await service.argv_of(host, folder) == argv:
        return
    await device_units.start(host, record, seat, part)


async def converge(session: Session, record: DeviceRecord, graph: Graph) -> None:
    """A running daemon gets the nodes and exports of `graph`, and loses all others of ours. Requests in flight come to
    their end first, wherever one node takes the place of another."""
    await _hide_others(session, graph)
    await _add_nodes(session, record, graph)
    present = await exports.ids(session)
    for export in graph.all_exports:
        if export["id"] not in present:
            await _show(session, export)
    await _drop_others(session, graph)
    await _reopen(session, record, graph)


async def _shed(session: Session, graph: Graph) -> None:
    """A running daemon loses what is not of `graph`."""
    await _hide_others(session, graph)
    await _drop_others(session, graph)


async def _hide_others(session: Session, graph: Graph) -> None:
    for id in sorted(await exports.ids(session) - {str(each["id"]) for each in graph.all_exports}):
        await exports.delete(session, id)


async def _show(session: Session, export: dict[str, Any]) -> None:
    """The helper of a daemon that has just been started may have been quicker."""
    try:
        await exports.add_described(session, export)
    except QemuError as error:
        if "already in use" not in error.reason:
            raise


async def _add_nodes(session: Session, record: DeviceRecord, graph: Graph) -> None:
    served = names.served(record.suid)
    before = await blockdev.named(session)
    for node in sorted(graph.all_nodes, key=lambda node: node["node-name"] == served):
        name = node["node-name"]
        if name not in before:
            await _add(session, node)
        elif name == served:
            await blockdev.reopen(session, node)


async def _reopen(session: Session, record: DeviceRecord, graph: Graph) -> None:
    """The image of a host that has lost the authority is read only, when no filter above it would write to it."""
    top, before = names.overlay(record.suid), await blockdev.named(session)
    for node in graph.all_nodes:
        if node["node-name"] == top and before[top]["ro"] != node.get("read-only", False):
            await blockdev.reopen(session, graphs.reopened(node))


async def _add(session: Session, node: dict[str, Any]) -> None:
    try:
        await blockdev.add(session, node)
    except QemuError as error:
        if "Duplicate node" not in error.reason:
            raise


async def _drop_others(session: Session, graph: Graph) -> None:
    """In rounds, because a node can be removed when none above it is left; what QEMU keeps for a node that stays (its
    file) cannot be removed, and need not."""
    wanted = {node["node-name"] for node in graph.all_nodes}
    while others := {name for name in await blockdev.names(session) if names.is_ours(name)} - wanted:
        removed = [name for name in others if await _removed(session, name)]
        if not removed:
            break
    left = [name for name in others if "-rw" in name]
    if left:
        raise EsdError(f"{left[0]} cannot be removed: something still writes by it", host=session.host)


async def _removed(session: Session, name: str) -> bool:
    try:
        await blockdev.delete(session, name)
    except QemuError:
        return False
    return True
