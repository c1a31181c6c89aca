"""For Python callers: what the commands do, without their words. docs/api.md tells of it, with examples that run.

moved = await api.migrate(Request("vm1", "hostB", Handler.ON_DEMAND), print)
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from qemu_esd import doctor, guests, hooks, log, migration, mover_process, recovery, status, trial, view
from qemu_esd.adhoc import Peer, open_peer
from qemu_esd.errors import EsdError, RefusedError, UnfinishedError, UsageError
from qemu_esd.hosts.connect import Hosts, open_hosts
from qemu_esd.journal import claims, registry, store
from qemu_esd.model.block_graph import BlockGraph
from qemu_esd.model.disk import link_of
from qemu_esd.model.finding import Finding, Level
from qemu_esd.model.plan import Problem, Transport
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import DiskRecord, Entered, GuestRecord, Measured, State
from qemu_esd.model.recovery import Wish
from qemu_esd.model.request import DEFAULT_PORTS, Request
from qemu_esd.phases import adopt as adopting
from qemu_esd.phases import block_graph, discard, look, plan, policy, release, settle
from qemu_esd.phases.context import Clock, Context, Event, Monitors, Progress, Reporter
from qemu_esd.phases.station import Station, observe_station, open_station
from qemu_esd.recording import remembering, remembering_guest

__all__ = [
    "Agree", "Desk", "DiskMap", "EsdError", "Event", "Finding", "Handler", "Level", "Measured", "Peer",
    "PlanRefusedError", "Problem", "Progress", "RefusedError", "Reporter", "Request", "State", "Transport", "Trial",
    "UnfinishedError", "UsageError", "Wish",
    "adopt", "broken_off", "change_policy", "command_to_go_on", "examine", "follow_policy", "graph_guest",
    "look_around", "look_at_guests", "map_guest", "migrate", "migrate_detached", "open_desk", "open_guest", "open_peer",
    "propose", "recorded", "recover", "release_guest", "settle_guest", "try_out",
]  # fmt: skip

Trial = trial.Trial
DiskMap = view.DiskMap
T = TypeVar("T")
# Asked once, when the plan is known and nothing has been touched.
Agree = Callable[[plan.Proposal], Awaitable[bool]]


class PlanRefusedError(RefusedError):
    """The plan has problems; all of them are in `problems`, and nothing was touched."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        first = problems[0]
        super().__init__(first.what, host=first.host, hint=first.hint)
        self.problems = problems


@dataclass(frozen=True)
class Desk:
    """Open hosts and monitors of one command, and the ports that it has chosen."""

    hosts: Hosts
    monitors: Monitors
    claims: claims.Claims


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        hosts = Hosts(stack)
        yield Desk(hosts, Monitors(hosts, stack), stack.enter_context(claims.opened()))


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


async def migrate(
    request: Request, report: Reporter, *, until_settled: bool = True, agree: Agree | None = None
) -> view.MigrationView:
    """Move a guest; with `until_settled` also wait for what its policy moves by itself.

    Raises PlanRefusedError, RefusedError (nothing touched), RolledBackError (it runs where it ran),
    UnfinishedError. Cancelled before the commit it rolls back, cancelled after it it ends the handover first; then
    CancelledError.
    """
    clock = Clock()
    async with mover_process.taken_over(request.vm), open_desk() as desk:
        proposal = await plan.propose(desk.hosts, desk.monitors, request, desk.claims)
        if proposal.problems:
            raise PlanRefusedError(proposal.problems)
        if agree is not None and not await agree(proposal):
            raise RefusedError("not confirmed, and nothing was touched")
        id = proposal.plan.id
        with store.begin(proposal.plan) as journal, remembering(id) as recorder, log.bound(migration=id, vm=request.vm):
            for remark in proposal.remarks:
                recorder.remark("note", remark)
            async with hooks.telling(hooks.subject_of(proposal.plan), report) as telling:
                heard = recorder.hearing(telling)
                ctx = Context(proposal.plan, desk.hosts, desk.monitors, journal, heard, clock)
                ctx.measure("planned", "start")
                station = await _whole(migration.migrate(ctx), journal)
                recorder.versions(proposal.plan.source.host, proposal.plan.guest.version, station)
                with _going_on(request.vm, request.target, (disk.handler for disk in proposal.plan.disks)):
                    if until_settled:
                        station = await recorder.finish(ctx, station)
                    ctx.measure("total", "start")
                    return view.of_migration(journal.story, await recorder.at_the_end(station))


async def _whole(work: Coroutine[Any, Any, T], journal: store.Journal) -> T:
    """The result of `work`. It can be cancelled until the commit; after it a guest must not be left half way."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not journal.story.state.committed:
            task.cancel()
        # wait() leaves the task alone if we are cancelled once more.
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()
        raise


@contextmanager
def _going_on(vm: str, host: str, handlers: Iterable[Handler | None]) -> Iterator[None]:
    """After the commit nothing is rolled back: whatever fails, it is unfinished, and can be gone on with."""
    try:
        yield
    except (UnfinishedError, UsageError):
        raise
    except EsdError as error:
        what = f"{vm} runs on {host}, but its data could not all be brought there: {error}"
        raise UnfinishedError(what, hint=command_to_go_on(vm, handlers)) from error


def command_to_go_on(vm: str, handlers: Iterable[Handler | None]) -> str:
    """The words that bring over what the policy moves by itself: all of it, where nothing else is linked."""
    others = {Handler.ON_DEMAND, Handler.REDIRECT} & set(handlers)
    return f"qemu-esd settle {'--background-only ' if others else ''}{shlex.quote(vm)}"


async def migrate_detached(
    request: Request, report: Reporter, *, release: bool = False, agree: Agree | None = None
) -> view.MigrationView:
    """Move a guest and return after the handover; a process of ours sees to the rest, and then perhaps releases."""
    moved = await migrate(request, report, until_settled=False, agree=agree)
    if any(disk.handler in (Handler.BACKGROUND, Handler.MISS) for disk in moved.disks):
        mover_process.start(request.vm, moved.id, release=release)
    return moved


def recorded(id: str) -> view.MigrationView:
    """A migration as its journal tells it, whatever became of it."""
    return view.of_story(store.read(id))


@asynccontextmanager
async def open_guest(vm: str, host: str | None = None) -> AsyncIterator[Station]:
    """The running guest `vm`, where this controller knows it to be, or on `host`."""
    async with open_desk() as desk:
        name = host or await look.find_host(desk.hosts, vm)
        yield await open_station(desk.hosts, desk.monitors, name, vm)


async def settle_guest(vm: str, host: str | None, on_bytes: settle.OnBytes) -> view.GuestView:
    """Bring over what is left, prove it, cut the link. Settled already is fine."""
    async with mover_process.taken_over(vm), open_guest(vm, host) as station:
        if not station.record.upstream:
            return await view.of_station(station)
        async with _told_of(station, lambda _: None) as tell:
            with _journal(station.record) as note, remembering_guest(station.record) as recorder:
                with _going_on(vm, station.host.name, ()):
                    note(State.SETTLING)
                    station = await settle.settle(station, recorder.hearing_bytes(on_bytes) if recorder else on_bytes)
                    note(State.SETTLED)
                    tell(State.SETTLED)
                    if recorder is not None:
                        await recorder.at_the_end(station)
                    return await view.of_station(station)


async def follow_policy(vm: str, report: Reporter, *, release_then: bool = False) -> view.GuestView:
    """Bring over what the policy moves by itself, and nothing else: what a detached `migrate` has left to do.

    With `release_then` former sources forget the guest, if nothing of it needs them any more.
    """
    async with open_guest(vm) as station:
        record = station.record
        if not record.upstream or record.migration is None:
            return await view.of_station(station)
        async with _told_of(station, report) as telling:
            with store.reopen(record.migration) as journal, remembering(record.migration) as recorder:
                with _going_on(vm, station.host.name, (disk.handler for disk in station.linked())):
                    heard = recorder.hearing(telling)
                    ctx = Context(journal.story.plan, station.hosts, station.monitors, journal, heard)
                    station = await recorder.finish(ctx, station)
                    await recorder.at_the_end(station)
                    if release_then and not station.record.upstream:
                        station = await release.release(station)
                        ctx.enter(State.RELEASED)
                    return await view.of_station(station)


@asynccontextmanager
async def _told_of(station: Station, report: Reporter) -> AsyncIterator[Reporter]:
    """Hooks and log lines know of which migration the guest is being settled."""
    record = station.record
    source = record.upstream[0].host if record.upstream else None
    subject = hooks.Subject(record.migration, record.name, source, station.host.name)
    with log.bound(migration=record.migration, vm=record.name, host=station.host.name):
        async with hooks.telling(subject, report) as telling:
            yield telling


def broken_off(word: str | None) -> store.Story:
    """The migration of that id, the newest of that guest, or the only one that was broken off. Raises RefusedError."""
    if word is not None:
        return store.find(word)
    stories = store.unfinished()
    if len(stories) == 1:
        return stories[0]
    if not stories:
        for damage in store.read_all().damaged:
            raise damage
        raise RefusedError("no migration that was begun here was broken off", hint="see: qemu-esd status")
    several = ", ".join(f"{story.plan.id} ({story.plan.vm}, {story.state})" for story in stories)
    raise UsageError(f"several migrations were broken off: {several}", hint="name one of them")


async def adopt(word: str, host: str, wish: Wish, lost: Collection[str] = ()) -> store.Story:
    """A migration that another controller has begun, which is lost, as `host` knows it: from now on it is ours.

    Raises RefusedError if there is none, or if it is not clear how far it came; MonitorBusyError if it is at work.
    """
    async with open_desk() as desk:
        return await adopting.adopt(desk.hosts, desk.monitors, host, word, wish, lost)


async def recover(
    story: store.Story,
    wish: Wish,
    report: Reporter,
    lost: Collection[str] = (),
    agree: discard.Agree | None = None,
) -> view.MigrationView:
    """Go on with a migration that was broken off, or undo it; which of the two it became is in `committed`.

    Where nothing was broken off, but the guest's QEMU has ended, the guest is started again from its disks, or with
    Wish.DISCARD from those of the source: then `agree` is asked first. `lost` are hosts that are dead by the word of
    the operator. Raises UsageError, RefusedError (nothing was changed), UnfinishedError.
    """
    vm, source, target = story.plan.vm, story.plan.source.host, story.plan.target.host
    if wish is Wish.DISCARD and source in lost:
        raise UsageError(f"{source} is where {vm} would start", hint=f"name the one that is lost: {target}")
    async with mover_process.taken_over(vm), open_desk() as desk:
        id = story.plan.id
        with store.reopen(id) as journal, remembering(id) as recorder, log.bound(migration=id, vm=vm):
            async with hooks.telling(hooks.subject_of(story.plan), report) as telling:
                heard = recorder.hearing(telling)
                ctx = Context(story.plan, desk.hosts, desk.monitors, journal, heard, Clock(started=False))
                station = await recovery.recover(ctx, wish, lost, agree)
                if station is None:
                    return view.of_story(journal.story)
                with _going_on(vm, target, (disk.handler for disk in story.plan.disks)):
                    station = await recorder.finish(ctx, station)
                    return view.of_migration(journal.story, await recorder.at_the_end(station))


@contextmanager
def _journal(record: GuestRecord) -> Iterator[Callable[[State], None]]:
    """What writes a state into the journal of the guest's last migration, where this controller has one."""
    if record.migration is None or not store.path_of(record.migration).exists():
        yield lambda _: None
        return
    with store.reopen(record.migration) as journal:
        yield lambda state: journal.append(Entered(state))


async def release_guest(vm: str, host: str | None = None) -> view.GuestView:
    """Let former sources forget the guest."""
    async with mover_process.taken_over(vm), open_guest(vm, host) as station:
        with _journal(station.record) as note:
            station = await release.release(station)
            note(State.RELEASED)
            return await view.of_station(station)


async def change_policy(vm: str, disk: str | None, handler: Handler, host: str | None = None) -> view.GuestView:
    """Another handler for one disk, or for all that still miss something. A background move goes on by itself."""
    async with mover_process.taken_over(vm) as mover:
        async with open_guest(vm, host) as station:
            for row in _chosen(station, disk):
                station = await policy.change(station, row, handler)
            seen, record = await view.of_station(station), station.record
    if record.migration and any(row.handler is Handler.BACKGROUND and link_of(row.chain) for row in record.disks):
        mover_process.start(vm, record.migration, release=bool(mover and mover.release))
    return seen


def _chosen(station: Station, disk: str | None) -> tuple[DiskRecord, ...]:
    """The disks that are meant: one by its name, else all whose data is partly elsewhere."""
    name = station.record.name
    if disk is not None and not any(disk in (each.id, each.suid) for each in station.guest.disks):
        known = ", ".join(each.id for each in station.guest.disks)
        raise UsageError(f"{name} has no disk {disk!r}", hint=f"its disks are {known or 'none'}")
    rows = tuple(row for row in station.linked() if disk in (None, row.id, row.suid))
    if not rows:
        what = f"all of {disk or name} is where the guest runs, and no policy is needed"
        raise RefusedError(what, host=station.host.name, hint=f"qemu-esd status {shlex.quote(name)}")
    return rows


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
    seen, failures = await guests.list_everywhere(guests.known_hosts())
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
