"""The block graph of a guest on all hosts that have to do with it, as it is now. Nothing is changed.

Each program is asked by a monitor that stays free for it. Where that is in use, or a host is silent, the graph says so
in its place, and shows the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from qemu_esd.errors import EsdError, RefusedError
from qemu_esd.graph import names
from qemu_esd.hosts import facts, files
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors import processes, records
from qemu_esd.model.block_graph import BlockGraph, Program, ProgramKind, readings
from qemu_esd.model.disk import top_image
from qemu_esd.model.host import HostPaths
from qemu_esd.model.plan import Plan
from qemu_esd.model.record import Begun, GuestRecord
from qemu_esd.model.vm import Kind
from qemu_esd.phases import meeting, notice, places
from qemu_esd.phases.context import Monitors
from qemu_esd.qmp import block_graph, machine
from qemu_esd.qmp.session import Session


@dataclass(frozen=True)
class _Place:
    """A program that should be there. `optional`: a migration under way may not have come to it, or be past it."""

    program: Program
    optional: bool = False


async def look(hosts: Hosts, monitors: Monitors, host_name: str, vm: str) -> BlockGraph:
    """The graph of `vm`, which is on that host. Raises what kept the first program from answering, if none does."""
    record, begun = await _known(hosts, host_name, vm)
    wanted = _distinct(_places(record, begun, host_name, vm))
    answers = await asyncio.gather(*(_ask(hosts, monitors, place) for place in wanted), return_exceptions=True)
    programs = tuple(_shown(*both) for both in zip(wanted, answers, strict=True) if both[1] is not None)
    if all(program.problem for program in programs):
        raise next(answer for answer in answers if isinstance(answer, BaseException))
    return BlockGraph(vm, programs, readings(programs, dict(_relayed(record, begun, host_name))))


def _shown(place: _Place, answer: Program | BaseException | None) -> Program:
    if isinstance(answer, EsdError):
        return replace(place.program, problem=str(answer))
    if isinstance(answer, BaseException):
        raise answer
    assert answer is not None
    return answer


async def _known(hosts: Hosts, host_name: str, vm: str) -> tuple[GuestRecord | None, tuple[Begun, ...]]:
    host = await hosts.get(host_name)
    paths = (await facts.look(host)).paths
    return await asyncio.gather(records.guest(host, paths, vm), notice.read(host, paths, vm))


def _places(record: GuestRecord | None, begun: Iterable[Begun], host: str, vm: str) -> Iterator[_Place]:
    """The guest, what its record says it reads from, and what a migration under way has made."""
    reads_by = record.migration if record and record.upstream else None
    yield _Place(_guest(host, vm, reads_by))
    if record and reads_by and record.kind is Kind.DOMAIN:
        yield _Place(_relay(host, reads_by))
    yield from (_Place(_handler(one.host, one.migration)) for one in (record.upstream if record else ()))
    for one in begun:
        yield from (_Place(program, optional=True) for program in _under_way(one.plan))


def _guest(host: str, vm: str, reads_by: str | None) -> Program:
    return Program(host, ProgramKind.GUEST, vm, reads_by=reads_by)


def _relay(host: str, migration: str) -> Program:
    return Program(host, ProgramKind.RELAY, migration, reads_by=migration)


def _handler(host: str, migration: str) -> Program:
    return Program(host, ProgramKind.PATH_HANDLER, migration)


def _under_way(plan: Plan) -> Iterator[Program]:
    upstream = plan.guest.migration if plan.guest.upstream else None
    yield _guest(plan.source.host, plan.vm, upstream)
    if plan.domain and upstream:
        yield _relay(plan.source.host, upstream)
    yield _handler(plan.source.host, plan.id)
    yield _guest(plan.target.host, plan.vm, plan.id)
    if plan.domain:
        yield _relay(plan.target.host, plan.id)


def _relayed(record: GuestRecord | None, begun: Iterable[Begun], host: str) -> Iterator[tuple[tuple[str, str], str]]:
    """By what overlay libvirt's QEMU comes to which export of a relay."""
    for disk in record.disks if record and record.kind is Kind.DOMAIN else ():
        if overlay := top_image(disk.chain):
            yield (host, overlay.path), names.served(disk.suid)
    for one in begun:
        for planned in one.plan.disks if one.plan.domain else ():
            if planned.member:
                yield (one.plan.target.host, planned.member.path), names.served(planned.disk.suid)


def _distinct(found: Iterable[_Place]) -> list[_Place]:
    kept: dict[tuple[str, str, str], _Place] = {}
    for place in found:
        kept.setdefault((place.program.host, place.program.kind, place.program.name), place)
    return list(kept.values())


async def _ask(hosts: Hosts, monitors: Monitors, place: _Place) -> Program | None:
    """The program with its graph; None for one that need not be there, and is not."""
    ask = _ask_guest if place.program.kind is ProgramKind.GUEST else _ask_daemon
    host = await hosts.get(place.program.host)
    return await ask(host, (await facts.look(host)).paths, monitors, place)


async def _ask_guest(host: Host, paths: HostPaths, monitors: Monitors, place: _Place) -> Program | None:
    vm = place.program.name
    process = await processes.find(host, vm)
    if process is None and place.optional:
        return None
    if process is None:
        raise RefusedError(f"{vm} does not run", host=host.name, hint="see: qemu-esd status")
    session = await monitors.get(host.name, meeting.observer_of(host.name, process, paths), vm)
    return await _drawn(session, place.program, has_devices=True)


async def _ask_daemon(host: Host, paths: HostPaths, monitors: Monitors, place: _Place) -> Program | None:
    kind, migration = place.program.kind, place.program.name
    wanted = [socket(paths, migration) for socket in _MONITORS[kind]]
    record, present = await asyncio.gather(records.link(host, paths, migration), files.existing(host, *wanted))
    socket = next((path for path in wanted if path in present), None)
    if socket is None and place.optional:
        return None
    if socket is None:
        what = f"the {kind} of migration {migration} does not run"
        raise RefusedError(what, host=host.name, hint=f"qemu-esd host restore {host.name}")
    session = await monitors.get(host.name, socket, f"the {kind}")
    program = replace(place.program, reads_by=record.upstream if record else place.program.reads_by)
    return await _drawn(session, program, has_devices=False)


# The monitor to look through; one that was started by an older qemu-esd has only that for changes.
_MONITORS: dict[ProgramKind, tuple[Callable[[HostPaths, str], str], ...]] = {
    ProgramKind.PATH_HANDLER: (places.observer_socket, places.handler_socket),
    ProgramKind.RELAY: (places.relay_observer, places.relay_monitor),
}


async def _drawn(session: Session, program: Program, *, has_devices: bool) -> Program:
    drawn = await block_graph.draw(session, has_devices=has_devices)
    state = await machine.run_state(session) if has_devices else None
    return replace(program, state=state, nodes=drawn.nodes, edges=drawn.edges, users=drawn.users)
