"""A migration that was broken off, brought to an end: on to the target where the guest is, or back."""

from __future__ import annotations

import shlex
from collections.abc import Collection

from qemu_esd.errors import RefusedError
from qemu_esd.hypervisors import records
from qemu_esd.migration import forward, take_over
from qemu_esd.model.record import State
from qemu_esd.model.recovery import Verdict, Wish
from qemu_esd.model.vm import Kind
from qemu_esd.phases import arrival, discard, domain_move, restart, undo
from qemu_esd.phases.context import Context
from qemu_esd.phases.station import Station


async def _restart_qemu(ctx: Context) -> None:
    await restart.start_again(await ctx.target(), ctx.plan.target.paths, await arrival.record_on_target(ctx))


_RESTART = {Kind.BARE: _restart_qemu, Kind.DOMAIN: domain_move.start_again}


async def _check_open(ctx: Context) -> None:
    """Raises RefusedError where there is nothing to go on with: what is written down since must not be undone."""
    plan, state = ctx.plan, ctx.journal.story.state
    hint = f"qemu-esd status {shlex.quote(plan.vm)}"
    if state in (State.SETTLED, State.RELEASED):
        raise RefusedError(f"migration {plan.id} of {plan.vm} was not broken off: it is {state}", hint=hint)
    there = await records.guest(await ctx.target(), plan.target.paths, plan.vm)
    # An older record than the plan is of an earlier visit, or of another guest that was called so.
    is_later = there is not None and there.uuid == plan.guest.uuid and there.generation >= plan.generation
    if there is not None and is_later and there.migration != plan.id:
        what = f"{plan.vm} has moved again since migration {plan.id}, by migration {there.migration}"
        raise RefusedError(what, host=plan.target.host, hint=hint)


async def recover(
    ctx: Context, wish: Wish, lost: Collection[str] = (), agree: discard.Agree | None = None
) -> Station | None:
    """Bring a migration that was broken off to an end, as far as it can be; None: the guest is the source's.

    Raises RefusedError where nobody can tell, and UnfinishedError. `lost` are hosts that the operator says are dead;
    `agree` is asked before anything is given up.
    """
    verdict, seen = await undo.judge(ctx, wish, lost)
    if verdict in (Verdict.ON, Verdict.RESTART):
        await _check_open(ctx)
    match verdict:
        case Verdict.BACK:
            await undo.go_back(ctx, lost)
            return None
        case Verdict.DISCARD:
            await discard.discard(ctx, seen, lost, agree)
            return None
        case Verdict.RESTART:
            await _RESTART[ctx.plan.guest.kind](ctx)
        case _ if not ctx.journal.story.state.committed:
            await take_over(ctx)
    return await forward(ctx)
