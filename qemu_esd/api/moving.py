"""Migrations: begun, gone on with, undone. What is kept of one meanwhile is in `books`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, TypeVar

from qemu_esd import hooks, migration, mover_process, recovery, view
from qemu_esd.api.desk import Desk, open_desk
from qemu_esd.api.settling import going_on
from qemu_esd.books import keeping
from qemu_esd.errors import RefusedError, UsageError
from qemu_esd.journal import store
from qemu_esd.model.plan import Problem
from qemu_esd.model.policy import Handler
from qemu_esd.model.recovery import Wish
from qemu_esd.model.request import Request
from qemu_esd.phases import adopt as adopting
from qemu_esd.phases import discard, plan
from qemu_esd.phases.context import Clock, Context, Reporter

T = TypeVar("T")
# Asked once, when the plan is known and nothing has been touched.
Agree = Callable[[plan.Proposal], Awaitable[bool]]


class PlanRefusedError(RefusedError):
    """The plan has problems; all of them are in `problems`, and nothing was touched."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        first = problems[0]
        super().__init__(first.what, host=first.host, hint=first.hint)
        self.problems = problems


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
        proposal = await _agreed(desk, request, agree)
        with store.begin(proposal.plan) as journal:
            async with keeping(journal, hooks.subject_of(proposal.plan), report) as books:
                for remark in proposal.remarks:
                    books.recorder.remark("note", remark)
                ctx = Context(proposal.plan, desk.hosts, desk.monitors, journal, books.report, clock)
                ctx.measure("planned", "start")
                station = await _whole(migration.migrate(ctx), journal)
                books.recorder.versions(proposal.plan.source.host, proposal.plan.guest.version, station)
                with going_on(request.vm, request.target, (disk.handler for disk in proposal.plan.disks)):
                    if until_settled:
                        station = await books.recorder.finish(station, ctx.enter, books.report)
                    ctx.measure("total", "start")
                    return view.of_migration(journal.story, await books.recorder.at_the_end(station))


async def _agreed(desk: Desk, request: Request, agree: Agree | None) -> plan.Proposal:
    """What is to be done: without a problem, and by the word of whoever is to be asked."""
    proposal = await plan.propose(desk.hosts, desk.monitors, request, desk.claims)
    if proposal.problems:
        raise PlanRefusedError(proposal.problems)
    if agree is not None and not await agree(proposal):
        raise RefusedError("not confirmed, and nothing was touched")
    return proposal


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


async def migrate_detached(
    request: Request, report: Reporter, *, release: bool = False, agree: Agree | None = None
) -> view.MigrationView:
    """Move a guest and return after the handover; a process of ours sees to the rest, and then perhaps releases."""
    moved = await migrate(request, report, until_settled=False, agree=agree)
    if any(disk.handler in (Handler.BACKGROUND, Handler.MISS) for disk in moved.disks):
        mover_process.start(request.vm, moved.id, release=release)
    return moved


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
    for host in lost:
        if host not in (source, target):
            raise UsageError(f"{host} is no host of migration {story.plan.id}", hint=f"they are {source} and {target}")
    async with mover_process.taken_over(vm), open_desk() as desk:
        with store.reopen(story.plan.id) as journal:
            async with keeping(journal, hooks.subject_of(story.plan), report) as books:
                clock = Clock(started=False)
                ctx = Context(story.plan, desk.hosts, desk.monitors, journal, books.report, clock)
                station = await recovery.recover(ctx, wish, lost, agree)
                if station is None:
                    return view.of_story(journal.story)
                with going_on(vm, target, (disk.handler for disk in story.plan.disks)):
                    station = await books.recorder.finish(station, ctx.enter, books.report)
                    return view.of_migration(journal.story, await books.recorder.at_the_end(station))
