"""Guests as they are now, wherever they are. Nothing is changed.

Hosts are asked side by side, each within a bound: one that does not answer is said not to, and holds up nobody.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from qemu_esd import mover_process, view
from qemu_esd.errors import EsdError, MonitorBusyError
from qemu_esd.hosts import facts
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors import processes, records
from qemu_esd.hypervisors.libvirt import acts
from qemu_esd.journal import registry, shelf, store
from qemu_esd.journal.lines import DamagedJournalError
from qemu_esd.model.record import Begun, GuestRecord, State
from qemu_esd.model.vm import Kind, QemuProcess
from qemu_esd.phases import notice
from qemu_esd.phases.context import Monitors
from qemu_esd.phases.station import observe
from qemu_esd.view import GuestView, journal_of

# A host that has not told everything by then counts as one that cannot be reached.
LOOK_SECONDS = 40.0


@dataclass(frozen=True)
class Overview:
    """Guests as they are now, and the journals here that cannot be read."""

    guests: tuple[GuestView, ...]
    damaged: tuple[DamagedJournalError, ...]


async def look(guests: Iterable[registry.Known]) -> Overview:
    """Each guest where it is now, in the order given. A host that does not answer makes a view that says so."""
    known = tuple(guests)
    seen = await _look_at({guest.name: guest.hosts[-1] for guest in known})
    # Read last: a migration may have come to its end while its hosts were asked.
    journals = shelf.read_all()
    views = tuple(_with_journal(seen[guest.name], journals) for guest in known)
    return Overview(views, journals.damaged)


async def _look_at(where: dict[str, str], been: frozenset[tuple[str, str]] = frozenset()) -> dict[str, GuestView]:
    """Guests by name, looked for on the hosts named, and on those to which their records there point."""
    by_host: dict[str, list[str]] = {}
    for vm, host in where.items():
        by_host.setdefault(host, []).append(vm)
    answers = await asyncio.gather(*(_ask(host, vms) for host, vms in by_host.items()))
    seen = {vm: found for answer in answers for vm, found in answer.items()}
    been |= frozenset(where.items())
    moved = {vm: to for vm, to in seen.items() if isinstance(to, str) and (vm, to) not in been}
    views = {
        vm: _lost(vm, where[vm], found) if isinstance(found, str) else found
        for vm, found in seen.items()
        if vm not in moved
    }
    return views | (await _look_at(moved, been) if moved else {})


def _lost(vm: str, host: str, to: str) -> GuestView:
    return view.of_absent(vm, host, "lost", f"its record there says {to}, and the one on {to} says otherwise")


async def _ask(host: str, vms: list[str]) -> dict[str, GuestView | str]:
    """What one host says of guests: a view, or the name of the host that it has moved to."""
    answers: dict[str, GuestView | str] = {}
    problem = f"{host} did not answer within {LOOK_SECONDS:g} s"
    try:
        async with asyncio.timeout(LOOK_SECONDS), _open(host) as desk:
            ground = await _survey(desk, host, vms)

            async def look_for(vm: str) -> None:
                answers[vm] = await _look_once(desk, ground, vm)

            await asyncio.gather(*map(look_for, vms))
    except TimeoutError:
        pass
    except EsdError as error:
        problem = _told(error)
    return {vm: answers.get(vm) or view.of_absent(vm, host, "unreachable", problem) for vm in vms}


@dataclass(frozen=True)
class _Desk:
    hosts: Hosts
    monitors: Monitors


@asynccontextmanager
async def _open(host: str) -> AsyncIterator[_Desk]:
    """A host with a connection of its own, so that a dead one does not keep others waiting when it is closed."""
    async with AsyncExitStack() as stack:
        hosts = Hosts(stack)
        await hosts.get(host)
        yield _Desk(hosts, Monitors(hosts, stack))


@dataclass(frozen=True)
class _Ground:
    """What a host knows of guests, asked in as many round trips for a hundred of them as for one."""

    host: Host
    running: tuple[QemuProcess, ...]
    records: Mapping[str, bytes]
    begun: tuple[Begun, ...]


async def _survey(desk: _Desk, name: str, vms: list[str]) -> _Ground:
    host = await desk.hosts.get(name)
    paths = (await facts.look(host)).paths
    return _Ground(
        host,
        *await asyncio.gather(processes.find_all(host), records.guests(host, paths, vms), notice.read_all(host, paths)),
    )


async def _look_once(desk: _Desk, ground: _Ground, vm: str) -> GuestView | str:
    try:
        seen = await _look_at_guest(desk, ground, vm)
    except MonitorBusyError as error:
        seen = view.of_absent(vm, ground.host.name, "busy", _told(error))
    except EsdError as error:
        seen = view.of_absent(vm, ground.host.name, "unknown", _told(error))
    if isinstance(seen, str):
        return seen
    for begun in ground.begun:
        # What was begun here is told by its journal.
        if vm == begun.plan.vm and not store.path_of(begun.plan.id).exists():
            return replace(seen, problem=_begun_elsewhere(begun))
    return seen


def _begun_elsewhere(begun: Begun) -> str:
    id, target = begun.plan.id, begun.plan.target.host
    where = f"there: qemu-esd resume {id}; here, if that is lost: qemu-esd resume {id} --host {begun.plan.source.host}"
    return f"migration {id} to {target} has not come to its end; it was begun by {begun.controller}; {where}"


async def _look_at_guest(desk: _Desk, ground: _Ground, vm: str) -> GuestView | str:
    record = records.read_guest(ground.records[vm]) if vm in ground.records else None
    if record is not None and record.moved_to is not None:
        return record.moved_to
    process = processes.named(ground.running, vm, ground.host.name)
    if process is None:
        if record is not None and record.kind is Kind.DOMAIN:
            return await _domain_that_does_not_run(desk, ground.host.name, record)
        return view.of_absent(vm, ground.host.name, "shut off", _how_to_start(vm, record))
    return await view.of_station(await observe(desk.hosts, desk.monitors, ground.host, process, record))


async def _domain_that_does_not_run(desk: _Desk, host: str, record: GuestRecord) -> GuestView:
    """libvirt may have moved it on without a word to us."""
    name = shlex.quote(record.name)
    if await acts.has(await desk.monitors.libvirt(host), record.uuid):
        first = f"qemu-esd host restore {host}, then: " if record.upstream else ""
        return view.of_absent(record.name, host, "shut off", f"to start it again: {first}virsh start {name}")
    what = "the libvirt there has no such domain any more: others have moved it on, or undefined it"
    hint = f"to move it from where it is: qemu-esd migrate {name} HOST --from THAT-HOST; if it is no more: vm forget"
    return view.of_absent(record.name, host, "lost", f"{what}; {hint}")


def _how_to_start(vm: str, record: GuestRecord | None) -> str | None:
    """A guest that has ended, by itself or not, is started from its disks; where they are, it alone knows."""
    return f"to start it again: qemu-esd vm start {shlex.quote(vm)}" if record is not None and record.argv else None


def _told(error: EsdError) -> str:
    return f"{error}; try: {error.hint}" if error.hint else str(error)


def _with_journal(seen: GuestView, journals: shelf.Shelf) -> GuestView:
    """What this controller knows besides: a migration under way or broken off, and whether its data moves on."""
    story = journals.newest.get(seen.vm)
    if isinstance(story, DamagedJournalError):
        return replace(seen, problem=seen.problem or _told(story))
    if story is not None:
        # Also of one that has not come to its end, or whose host is silent.
        seen = replace(seen, journal=journal_of(story))
    if story is not None and store.at_work(story.plan.id):
        return replace(seen, state=story.state)
    # What is given up must not be started, whatever else may be said of it.
    told = seen.problem is not None and story is not None and story.state is not State.DISCARDING
    if story is not None and story.is_broken_off and not told:
        return replace(seen, problem=_broken_off(story))
    if seen.state == State.SETTLING and seen.problem is None and mover_process.find(seen.vm) is None:
        return replace(seen, problem=f"nobody here sees its move through: qemu-esd settle {seen.vm}")
    return seen


def _broken_off(story: store.Story) -> str:
    """What happened, and the command that goes on: before the commit both ways may be open."""
    id, state = story.plan.id, story.state
    undoable = state in (State.PLANNED, State.PREPARING, State.SWITCHING)
    back = f", or to undo it: qemu-esd rollback {id}" if undoable else ""
    return f"migration {id} was broken off while {state}; to go on: qemu-esd resume {id}{back}"
