"""A migration that was broken off, brought to an end: on to the target where the guest is, or back."""

from __future__ import annotations

from collections.abc import Collection

from qemu_esd.migration import forward, take_over
from qemu_esd.model.recovery import Verdict, Wish
from qemu_esd.model.vm import Kind
from qemu_esd.phases import arrival, discard, domain_move, restart, undo
from qemu_esd.phases.context import Context
from qemu_esd.phases.station import Station


async def _restart_qemu(ctx: Context) -> None:
    await restart.start_again(await ctx.target(), ctx.plan.target.paths, await arrival.record_on_target(ctx))


_RESTART = {Kind.BARE: _restart_qemu, Kind.DOMAIN: domain_move.start_again}


async def recover(
    ctx: Context, wish: Wish, lost: Collection[str] = (), agree: discard.Agree | None = None
) -> Station | None:
    """Bring a migration that was broken off to an end, as far as it can be; None: the guest is the source's.

    Raises RefusedError where nobody can tell, and UnfinishedError. `lost` are hosts that the operator says are dead;
    `agree` is asked before anything is given up.
    """
    verdict, seen = await undo.judge(ctx, wish, lost)
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
