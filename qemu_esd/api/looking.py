"""What only looks: nothing is changed on any host."""

from __future__ import annotations

from collections.abc import Collection

from qemu_esd import doctor, listing, mover_process, status, trial, view
from qemu_esd.api.desk import open_desk
from qemu_esd.errors import RefusedError, UsageError
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.journal import registry, shelf, store
from qemu_esd.model.block_graph import BlockGraph
from qemu_esd.model.finding import Finding
from qemu_esd.model.request import DEFAULT_PORTS, Request
from qemu_esd.phases import block_graph, look, plan
from qemu_esd.phases.station import observe_station


async def propose(request: Request) -> plan.Proposal:
    """What `migrate` would do and all that stands in its way. Touches nothing on any host."""
    async with mover_process.taken_over(request.vm) as mover, open_desk() as desk:
        proposal = await plan.propose(desk.hosts, desk.monitors, request, desk.claims)
    mover_process.restart(mover)
    return proposal


async def examine(names: Collection[str], ports: range = DEFAULT_PORTS) -> tuple[Finding, ...]:
    """What `doctor` finds of these hosts, and of the ways between them. Raises UsageError for a name that is none."""
    async with open_hosts() as hosts:
        return await doctor.examine(hosts, tuple(names), ports)


async def try_out(request: Request) -> trial.Trial:
    """`propose`, and where that finds no problem the checks of `doctor` for both hosts, and a forecast."""
    proposal = await propose(request)
    async with open_hosts() as hosts:
        return await trial.try_out(hosts, request, proposal)


def recorded(id: str) -> view.MigrationView:
    """A migration as its journal tells it, whatever became of it."""
    return view.of_story(store.read(id))


def broken_off(word: str | None) -> store.Story:
    """The migration of that id, the newest of that guest, or the only one that was broken off. Raises RefusedError."""
    if word is not None:
        return shelf.find(word)
    stories = shelf.unfinished()
    if len(stories) == 1:
        return stories[0]
    if not stories:
        for damage in shelf.read_all().damaged:
            raise damage
        raise RefusedError("no migration that was begun here was broken off", hint="see: qemu-esd status")
    several = ", ".join(f"{story.plan.id} ({story.plan.vm}, {story.state})" for story in stories)
    raise UsageError(f"several migrations were broken off: {several}", hint="name one of them")


async def look_at_guests(vm: str | None = None) -> tuple[view.GuestView, ...]:
    """One guest, or all that this controller knows, as they are now. Raises RefusedError for an unknown one."""
    return (await look_around(vm)).guests


async def look_around(vm: str | None = None) -> status.Overview:
    """The same, with what is wrong with the journals here."""
    if vm is None:
        return await status.look(registry.everything())
    return await status.look((registry.find(vm) or await _searched(vm),))


async def _searched(vm: str) -> registry.Known:
    """A guest that this controller has not seen yet, on one of the hosts that it has seen."""
    seen, failures = await listing.list_everywhere(listing.known_hosts())
    found = tuple(row.host for row in seen if row.name == vm)
    if not found:
        silent = ", ".join(error.host for error in failures if error.host)
        what = f"there is no guest {vm}" + (f", unless on {silent}, which do not answer" if silent else "")
        raise RefusedError(what, hint="on other hosts: qemu-esd vm list --host HOST")
    return registry.Known(vm, found)


async def map_guest(vm: str, disk: str | None = None) -> tuple[str, tuple[view.DiskMap, ...]]:
    """The host of a guest, and where the bytes of its disks are. Raises UsageError for an unknown disk."""
    async with open_desk() as desk:
        host = await look.find_host(desk.hosts, vm)
        station = await observe_station(desk.hosts, desk.monitors, host, vm)
        named = [each for each in station.guest.disks if disk in (None, each.id, each.suid)]
        if not named:
            known = ", ".join(each.id for each in station.guest.disks)
            raise UsageError(f"{vm} has no disk {disk!r}", hint=f"its disks are {known or 'none'}")
        return host, await view.disk_maps(station, named)


async def graph_guest(vm: str) -> BlockGraph:
    """The block graph of a guest on all hosts that have to do with it, as it is now."""
    async with open_desk() as desk:
        return await block_graph.look(desk.hosts, desk.monitors, await look.find_host(desk.hosts, vm), vm)
