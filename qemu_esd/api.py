"""For Python callers: what the commands do, without their words.

    report = await api.migrate(Request("vm1", "hostB", Handler.ON_DEMAND), on_progress=print)
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from qemu_esd import migration, view
from qemu_esd.errors import RefusedError, UsageError
from qemu_esd.hosts.connect import Hosts
from qemu_esd.journal import store
from qemu_esd.model.plan import Problem
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import DiskRecord, Measured
from qemu_esd.model.request import Request
from qemu_esd.phases import look, plan, policy, release, settle
from qemu_esd.phases.context import Clock, Context, Monitors, Reporter
from qemu_esd.phases.station import Station, open_station


class PlanRefusedError(RefusedError):
    """The plan has problems; all of them are in `problems`, and nothing was touched."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        first = problems[0]
        super().__init__(first.what, host=first.host, hint=first.hint)
        self.problems = problems


@dataclass(frozen=True)
class Desk:
    """Open hosts and monitors of one command."""

    hosts: Hosts
    monitors: Monitors


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        hosts = Hosts(stack)
        yield Desk(hosts, Monitors(hosts, stack))


async def propose(request: Request) -> plan.Proposal:
    """What `migrate` would do and all that stands in its way. Touches nothing."""
    async with open_desk() as desk:
        return await plan.propose(desk.hosts, desk.monitors, request)


async def migrate(request: Request, report: Reporter, *, until_settled: bool = True) -> view.MigrationView:
    """Move a guest; with `until_settled` also wait for what its policy moves by itself.

    Raises PlanRefusedError, RefusedError (nothing touched), RolledBackError (it runs where it ran), UnfinishedError.
    """
    clock = Clock()
    async with open_desk() as desk:
        proposal = await plan.propose(desk.hosts, desk.monitors, request)
        if proposal.problems:
            raise PlanRefusedError(proposal.problems)
        with store.begin(proposal.plan) as journal:
            ctx = Context(proposal.plan, desk.hosts, desk.monitors, journal, report, clock)
            station = await migration.migrate(ctx)
            if until_settled:
                station = await migration.finish(ctx, station)
            figures = {e.name: e.ms for e in journal.story.entries if isinstance(e, Measured)}
            return await view.of_migration(station, proposal.plan, journal.story.state, figures, clock)


@asynccontextmanager
async def open_guest(vm: str, host: str | None = None) -> AsyncIterator[Station]:
    """The running guest `vm`, where this controller knows it to be, or on `host`."""
    async with open_desk() as desk:
        name = host or await look.find_host(desk.hosts, vm)
        yield await open_station(desk.hosts, desk.monitors, name, vm)


async def settle_guest(vm: str, host: str | None, on_bytes: settle.OnBytes) -> view.GuestView:
    """Bring over what is left, prove it, cut the link."""
    async with open_guest(vm, host) as station:
        return await view.of_station(await settle.settle(station, on_bytes))


async def release_guest(vm: str, host: str | None = None) -> view.GuestView:
    """Let former sources forget the guest."""
    async with open_guest(vm, host) as station:
        return await view.of_station(await release.release(station))


async def change_policy(vm: str, disk: str | None, handler: Handler, host: str | None = None) -> view.GuestView:
    """Another handler for one disk, or for all that still miss something."""
    async with open_guest(vm, host) as station:
        for row in _chosen(station, disk):
            station = await policy.change(station, row, handler)
        return await view.of_station(station)


def _chosen(station: Station, disk: str | None) -> tuple[DiskRecord, ...]:
    rows = tuple(row for row in station.record.disks if disk in (None, row.id, row.suid))
    if disk is not None and not rows:
        known = ", ".join(row.id for row in station.record.disks)
        raise UsageError(f"{station.record.name} has no disk {disk!r}", hint=f"its disks are {known or 'all local'}")
    linked = station.linked()
    return rows if disk is not None else tuple(row for row in rows if row in linked)
