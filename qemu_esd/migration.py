"""The whole migration, on one screen.

Before `State.COMMITTED` is written every failure releases what is held, and the guest never noticed.
After it there is only forward; `docs/recovery.md` says for each state what a kill means.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from contextlib import AsyncExitStack

from qemu_esd.errors import EsdError, HostError, RefusedError, RolledBackError, UnfinishedError
from qemu_esd.log import logger
from qemu_esd.model.disk import images
from qemu_esd.model.plan import Plan
from qemu_esd.model.policy import Handler
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import State
from qemu_esd.model.recovery import Source, Verdict, Wish
from qemu_esd.model.vm import Kind
from qemu_esd.phases import arrival, domain_move, handover, notice, prepare, settle, switchover, undo, windows
from qemu_esd.phases.context import Context, Reporter
from qemu_esd.phases.guard import guarded
from qemu_esd.phases.station import Station, open_station


async def migrate(ctx: Context) -> Station:
    """Move the guest. Returns with it running on the target and the source QEMU gone.

    Raises RolledBackError or RefusedError (the guest runs on the source, nothing is left over), or UnfinishedError
    (it is committed, and the hint names how to go on).
    """
    async with AsyncExitStack() as stack:
        try:
            await _until_commit(ctx, stack)
        except BaseException as error:
            # Shielded: a second Ctrl-C must not stop the undoing of the first.
            await asyncio.shield(asyncio.ensure_future(_after_failure(ctx, error)))
        return await forward(ctx)


async def _until_commit(ctx: Context, stack: AsyncExitStack) -> None:
    """Everything that can be undone. The guard's end is left to `stack`: the guest would stand still for it."""
    ctx.enter(State.PREPARING)
    await prepare.prepare(ctx)
    ctx.measure("prepared", "start")
    await _LEAD[ctx.plan.guest.kind](ctx, stack)
    await switchover.check_loaded(ctx)
    await take_over(ctx)


async def _lead_qemu(ctx: Context, stack: AsyncExitStack) -> None:
    await stack.enter_async_context(guarded(ctx))
    await switchover.move_memory(ctx)
    await switchover.commit(ctx)


async def _lead_libvirt(ctx: Context, stack: AsyncExitStack) -> None:
    await domain_move.move(ctx)


# Who moves the memory of a guest, and who lets it run.
_LEAD = {Kind.BARE: _lead_qemu, Kind.DOMAIN: _lead_libvirt}
_START = {Kind.BARE: switchover.start_target, Kind.DOMAIN: domain_move.start_target}


async def take_over(ctx: Context) -> None:
    """The fence first, then the word: from the latter on all that is held belongs to the guest on the target."""
    await handover.take_images(ctx)
    ctx.enter(State.COMMITTED)


async def forward(ctx: Context) -> Station:
    """From the commit on. Every step asks whether it is done already, so that a crash can go on from here too."""
    try:
        await _START[ctx.plan.guest.kind](ctx)
        _note_times(ctx)
        ctx.enter(State.RUNNING)
        await arrival.write_down(ctx)
        await handover.end_source(ctx)
        await notice.take_down(ctx)
        ctx.enter(State.HANDED_OVER)
        ctx.measure("handed-over", "start")
        return await _arrived(ctx)
    except EsdError as error:
        raise unfinished(ctx.plan, error) from error


def _note_times(ctx: Context) -> None:
    """Now, because while the guest stood still it would have waited for our disk."""
    ctx.measure("precopy", "start", "stopped")
    ctx.measure("downtime", "stopped", "resumed")
    ctx.measure("resumed-after", "start", "resumed")


async def _after_failure(ctx: Context, error: BaseException) -> None:
    """Undo all and raise; returns only where the guest has to go on, because its source died after giving it away."""
    try:
        verdict, seen = await undo.judge(ctx, Wish.BACK)
    except RefusedError as refusal:
        raise _undecided(ctx, error, refusal) from refusal
    if verdict is Verdict.ON:
        logger.warning("the source has died, and the target has all of the guest", error=str(error))
        await take_over(ctx)
        return
    await undo.go_back(ctx)
    if seen.source is Source.GONE:
        raise _died(ctx, error) from error
    if isinstance(error, EsdError) and not _refuses(error):
        what = f"{error}; {ctx.plan.vm} is on {ctx.plan.source.host} as before"
        raise RolledBackError(what, hint=error.hint or "mend the cause, then migrate again") from error
    raise error


def _undecided(ctx: Context, error: BaseException, refusal: RefusedError) -> EsdError:
    """Nobody can tell where the guest is. It is no refusal of the migration: that has touched both hosts."""
    why = str(error) or "interrupted"
    return EsdError(f"{refusal} (it began with: {why})", hint=f"when all answer: qemu-esd resume {ctx.plan.id}")


def _died(ctx: Context, error: BaseException) -> EsdError:
    vm, host = ctx.plan.vm, ctx.plan.source.host
    what = f"the QEMU of {vm} has ended while it moved ({error}); nothing of the migration is left"
    return EsdError(what, host=host, hint=f"start it again from its disks: qemu-esd vm start {shlex.quote(vm)}")


def _refuses(error: EsdError) -> bool:
    """Whether the first step already found that it must not be done. A host that was lost on the way is no refusal."""
    return isinstance(error, RefusedError) and not isinstance(error, HostError)


def unfinished(plan: Plan, error: EsdError) -> UnfinishedError:
    """What is in the way may be mended by more than one command: the last one is always the same."""
    onward = f"qemu-esd resume {plan.id}"
    hint = f"{error.hint}; then: {onward}" if error.hint else onward
    return UnfinishedError(f"the guest is committed to {plan.target.host}, but: {error}", hint=hint)


async def _arrived(ctx: Context) -> Station:
    """The guest where it is now, with windows to see what is local."""
    station = await open_station(ctx.hosts, ctx.monitors, ctx.plan.target.host, ctx.plan.vm)
    if disks := [disk for disk in station.linked() if images(disk.chain)]:
        await windows.open_all(station, disks)
    return station


async def finish(station: Station, enter: Callable[[State], None], report: Reporter) -> Station:
    """What the policy moves by itself: background disks settle; when only miss disks are left, nobody is needed."""

    def on_bytes(name: str, done: int, total: int) -> None:
        report(Progress(name, done, total))

    moved = [disk for disk in station.linked() if disk.handler is Handler.BACKGROUND]
    if moved:
        enter(State.SETTLING)
    station = await settle.settle_disks(station, moved, on_bytes)
    if all(disk.handler is Handler.MISS for disk in station.linked()):
        station = await settle.settle(station, on_bytes)
        enter(State.SETTLED)
    return station
