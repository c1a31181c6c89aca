"""Guests as they are now, wherever they are. Nothing is changed.

Hosts are asked side by side, each within a bound: one that does not answer is said not to, and holds up nobody.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from qemu_esd import mover_process, view
from qemu_esd.errors import EsdError, MonitorBusyError
from qemu_esd.hosts import facts
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors import processes, records
from qemu_esd.journal import registry, store
from qemu_esd.journal.lines import DamagedJournalError
from qemu_esd.model.record import Begun, GuestRecord, State
from qemu_esd.phases import notice
from qemu_esd.phases.context import Monitors
from qemu_esd.phases.station import observe_station
from qemu_esd.view import GuestView

# A host that has not told everything by then counts as one that cannot be reached.
LOOK_SECONDS = 40.0


async def look(guests: Iterable[registry.Known]) -> tuple[GuestView, ...]:
    """Each guest where it is now, in the order given. A host that does not answer makes a view that says so."""
    known = tuple(guests)
    seen = await _look_at({guest.name: guest.hosts[-1] for guest in known})
    return tuple(_with_journal(seen[guest.name]) for guest in known)


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
        async with asyncio.timeout(LOOK_SECONDS), _open(host) as (hosts, monitors):

            async def look_for(vm: str) -> None:
                answers[vm] = await _look_once(hosts, monitors, host, vm)

            await asyncio.gather(*map(look_for, vms))
    except TimeoutError:
        pass
    except EsdError as error:
        problem = _told(error)
    return {vm: answers.get(vm) or view.of_absent(vm, host, "unreachable", problem) for vm in vms}


@asynccontextmanager
async def _open(host: str) -> AsyncIterator[tuple[Hosts, Monitors]]:
    """A host with a connection of its own, so that a dead one does not keep others waiting when it is closed."""
    async with AsyncExitStack() as stack:
        hosts = Hosts(stack)
        await hosts.get(host)
        yield hosts, Monitors(hosts, stack)


async def _look_once(hosts: Hosts, monitors: Monitors, host_name: str, vm: str) -> GuestView | str:
    host = await hosts.get(host_name)
    paths = (await facts.look(host)).paths
    seen = await _look_at_guest(hosts, monitors, host_name, vm)
    if isinstance(seen, str):
        return seen
    for begun in await notice.read(host, paths, vm):
        # What was begun here is told by its journal.
        if not store.path_of(begun.plan.id).exists():
            return replace(seen, problem=_begun_elsewhere(begun))
    return seen


def _begun_elsewhere(begun: Begun) -> str:
    id, target = begun.plan.id, begun.plan.target.host
    where = f"there: qemu-esd resume {id}; here, if that is lost: qemu-esd resume {id} --host {begun.plan.source.host}"
    return f"migration {id} to {target} has not come to its end; it was begun by {begun.controller}; {where}"


async def _look_at_guest(hosts: Hosts, monitors: Monitors, host_name: str, vm: str) -> GuestView | str:
    host = await hosts.get(host_name)
    record = await records.guest(host, (await facts.look(host)).paths, vm)
    if record is not None and record.moved_to is not None:
        return record.moved_to
    if await processes.find(host, vm) is None:
        return view.of_absent(vm, host_name, "shut off", _how_to_start(vm, record))
    try:
        return await view.of_station(await observe_station(hosts, monitors, host_name, vm))
    except MonitorBusyError as error:
        return view.of_absent(vm, host_name, "busy", _told(error))
    except EsdError as error:
        return view.of_absent(vm, host_name, "unknown", _told(error))


def _how_to_start(vm: str, record: GuestRecord | None) -> str | None:
    """A guest that has ended, by itself or not, is started from its disks; where they are, it alone knows."""
    return f"to start it again: qemu-esd vm start {shlex.quote(vm)}" if record is not None and record.argv else None


def _told(error: EsdError) -> str:
    return f"{error}; try: {error.hint}" if error.hint else str(error)


def _with_journal(seen: GuestView) -> GuestView:
    """What this controller knows besides: a migration under way or broken off, and whether its data moves on."""
    try:
        story = store.newest_of(seen.vm)
    except DamagedJournalError as error:
        return replace(seen, problem=seen.problem or _told(error))
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
