"""What depends on a host, by its own records, and what other hosts have room for. Nothing is changed."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qemu_esd import trial
from qemu_esd.hosts import facts, files
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors import processes, records
from qemu_esd.journal import shelf
from qemu_esd.journal.store import Story
from qemu_esd.model.evacuation import Evacuation, Room
from qemu_esd.model.plan import Plan
from qemu_esd.phases import checks, device_records, places
from qemu_esd.phases.forecast import Forecast, forecast
from qemu_esd.phases.plan import Proposal


@dataclass(frozen=True)
class Survey:
    """What depends on a host.

    `running`: names of its guests. `nameless`: ids of processes of QEMUs that have none. `serving` and `kept`: guests
    that have left, and where to: they read from here, or only what they have left is here. `devices`: those that look
    shared, and have data here.
    """

    running: frozenset[str]
    nameless: tuple[int, ...]
    serving: Mapping[str, str]
    kept: Mapping[str, str]
    devices: tuple[str, ...]


async def survey(hosts: Hosts, name: str) -> Survey:
    host = await hosts.get(name)
    paths = (await facts.look(host)).paths
    running = await processes.find_all(host)
    units = set(await files.listing(host, f"{paths.state}/unit"))
    # The newest last: a guest may have left more than once.
    links = sorted(await records.links(host, paths), key=lambda link: link.generation)
    serves = {link.migration for link in links if places.path_handler_name(link.migration) in units}
    return Survey(
        frozenset(each.name for each in running if each.name),
        tuple(each.pid for each in running if not each.name),
        {link.vm: link.target for link in links if link.migration in serves and not link.put_aside},
        {link.vm: link.target for link in links if link.put_aside},
        tuple(device.suid for device in await device_records.all_on(host) if name in device.holders),
    )


async def ends(hosts: Hosts, order: Evacuation) -> dict[str, trial.Ends]:
    """What concerns every guest on its way to each of the targets: one after another, for they may share a link."""
    return {
        target: await trial.look_at_ends(hosts, order.source, target, order.transport, order.ports)
        for target in order.targets
    }


def broken_off(source: str) -> dict[str, Story]:
    """The migrations away from a host that were broken off here, by guest."""
    return {story.plan.vm: story for story in shelf.unfinished() if story.plan.source.host == source}


async def room(hosts: Hosts, target: str, plans: Iterable[Plan]) -> tuple[Room, dict[str, str]]:
    """What a target has for these plans, and which file system each folder is on that they name."""
    host = await hosts.get(target)
    found = {folder: await files.file_system(host, folder) for folder in {folder_of(plan) for plan in plans}}
    space = {each.mount: each.free for each in found.values()}
    return Room(await facts.available_memory(host), space), {folder: each.mount for folder, each in found.items()}


def folder_of(plan: Plan) -> str:
    """Where the members of its disks are to be: all of them are in one place."""
    return next((posixpath.dirname(disk.member.path) for disk in plan.disks if disk.member), "/")


def space_of(plan: Plan, *, overcommit: bool) -> int:
    """Bytes that a guest takes there: at worst, or by what is moved."""
    if overcommit:
        return sum(checks.growth(disk.handler, disk.disk.data) for disk in plan.disks if disk.member)
    return forecast(plan, None, ()).worst


def forecast_of(proposal: Proposal, end: trial.Ends) -> Forecast:
    return forecast(proposal.plan, end.wire, shelf.figures("downtime"))
