"""The whole migration, on one screen.

Before `State.COMMITTED` is written every failure releases what is held, and the guest never noticed.
After it there is only forward; `docs/recovery.md` says for each state what a kill means.
"""

from __future__ import annotations

import asyncio

from qemu_esd.errors import EsdError, HostError, RefusedError, RolledBackError, UnfinishedError
from qemu_esd.model.disk import images
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import State
from qemu_esd.phases import arrival, handover, hold, prepare, settle, switchover, windows
from qemu_esd.phases.context import Context, Progress
from qemu_esd.phases.station import Station, open_station


async def migrate(ctx: Context) -> Station:
    """Move the guest. Returns with it running on the target and the source QEMU gone.

    Raises RolledBackError or RefusedError (the guest runs on the source, nothing is left over), or UnfinishedError
    (it is committed, and the hint names how to go on).
    """
    await _until_commit(ctx)
    try:
        await switchover.start_target(ctx)
        ctx.enter(State.RUNNING)
        await arrival.write_down(ctx)
        await handover.end_source(ctx)
        ctx.enter(State.HANDED_OVER)
        ctx.measure("handed-over", ctx.clock.ms_since("start"))
        return await _arrived(ctx)
    except EsdError as error:
        raise _unfinished(ctx, error) from error


async def _until_commit(ctx: Context) -> None:
    """Everything that can be undone."""
    try:
        ctx.enter(State.PREPARING)
        await prepare.prepare(ctx)
        ctx.measure("prepared", ctx.clock.ms_since("start"))
        await switchover.move_memory(ctx)
        ctx.measure("precopy", ctx.clock.ms_since("start"))
        await switchover.commit(ctx)
        await handover.take_images(ctx)
        ctx.enter(State.COMMITTED)
    except BaseException as error:
        # Shielded: a second Ctrl-C must not stop the undoing of the first.
        await asyncio.shield(asyncio.ensure_future(_undo(ctx, error)))
        raise


async def _undo(ctx: Context, error: BaseException) -> None:
    failures = await hold.roll_back(ctx)
    plan = ctx.plan
    if failures:
        what = f"{error}; not all could be undone ({failures[0]}): see whether {plan.vm} runs on {plan.source.host}"
        raise EsdError(what, hint=f"qemu-esd status {plan.vm}; docs/recovery.md names what may be left") from error
    ctx.enter(State.ROLLED_BACK)
    if isinstance(error, EsdError) and not _refuses(error):
        what = f"{error}; {plan.vm} runs on {plan.source.host} as before"
        raise RolledBackError(what, hint=error.hint or "mend the cause, then migrate again") from error


def _refuses(error: EsdError) -> bool:
    """Whether the first step already found that it must not be done. A host that was lost on the way is no refusal."""
    return isinstance(error, RefusedError) and not isinstance(error, HostError)


def _unfinished(ctx: Context, error: EsdError) -> UnfinishedError:
    hint = error.hint or f"qemu-esd status {ctx.plan.vm}; docs/recovery.md says what each state means"
    return UnfinishedError(f"the guest is committed to {ctx.plan.target.host}, but: {error}", hint=hint)


async def _arrived(ctx: Context) -> Station:
    """The guest where it is now, with windows to see what is local."""
    station = await open_station(ctx.hosts, ctx.monitors, ctx.plan.target.host, ctx.plan.vm)
    if disks := [disk for disk in station.linked() if images(disk.chain)]:
        await windows.open_all(station.qemu, station.sockets.nbd, disks)
    return station


async def finish(ctx: Context, station: Station) -> Station:
    """What the policy moves by itself: background disks settle; when only miss disks are left, nobody is needed."""

    def on_bytes(name: str, done: int, total: int) -> None:
        ctx.report(Progress(name, done, total))

    moved = [disk for disk in station.linked() if disk.handler is Handler.BACKGROUND]
    if moved:
        ctx.enter(State.SETTLING)
    for disk in moved:
        station = await settle.settle_disk(station, disk, on_bytes)
    if all(disk.handler is Handler.MISS for disk in station.linked()):
        station = await settle.settle(station, on_bytes)
        ctx.enter(State.SETTLED)
    return station
