"""The way back, after an error, Ctrl-C and a crash alike: observe both hosts, decide, release what is held."""

from __future__ import annotations

import shlex
from collections.abc import Collection

from qemu_esd.errors import EsdError, RefusedError
from qemu_esd.model.record import State
from qemu_esd.model.recovery import Seen, Source, Target, Verdict, Wish, decide
from qemu_esd.phases import hold
from qemu_esd.phases.context import Context
from qemu_esd.phases.observe import observe


async def judge(ctx: Context, wish: Wish, lost: Collection[str] = ()) -> tuple[Verdict, Seen]:
    """What is safe now, and why. Raises RefusedError, saying what was seen where; nothing is changed."""
    seen, state = await observe(ctx, lost), ctx.journal.story.state
    verdict = decide(state, seen, wish)
    if verdict is Verdict.REFUSE:
        raise _refusal(ctx, state, seen, wish)
    return verdict, seen


def _refusal(ctx: Context, state: State, seen: Seen, wish: Wish) -> RefusedError:
    plan, discards = ctx.plan, wish is Wish.DISCARD or state is State.DISCARDING
    if state is State.DISCARDED:
        what = f"migration {plan.id} is over: what {plan.target.host} had of {plan.vm} was given up"
        return RefusedError(what, hint=f"qemu-esd status {shlex.quote(plan.vm)}")
    told = (
        f"{plan.vm} was left {state}: on {plan.source.host} {_SOURCE[seen.source]}, "
        f"on {plan.target.host} {_TARGET[seen.target]}"
    )
    for host, silent in ((plan.source.host, seen.source is Source.UNKNOWN), (plan.target.host, _is_silent(seen))):
        if silent and discards and host == plan.source.host:
            return RefusedError(f"{told}; nothing was changed", hint=f"see that {host} answers: the guest starts there")
        if silent:
            hint = f"see that {host} and its QEMU answer; if they are dead for good, add: --force-lost {host}"
            return RefusedError(f"{told}; nothing was changed", hint=hint)
    if state.committed and wish is Wish.BACK and seen.source is not Source.RUNS:
        hint = (
            f"qemu-esd resume {plan.id}, then: qemu-esd migrate {shlex.quote(plan.vm)} {plan.source.host} --policy ..."
        )
        return RefusedError(f"{told}; after the commit there is no way back but another migration", hint=hint)
    if discards and seen.target is not Target.GONE:
        hint = f"to bring it back as it is: qemu-esd migrate {shlex.quote(plan.vm)} {plan.source.host} --policy ..."
        return RefusedError(f"{told}; nothing of it is given up while it lives", hint=hint)
    if discards and seen.source is not Source.RUNS:
        what = f"{told}; {plan.source.host} has nothing to come back to but old data"
        return RefusedError(what, hint=f"start it where it is: qemu-esd vm start {shlex.quote(plan.vm)}")
    hint = f"find out which one is right, end the other, then: qemu-esd status {shlex.quote(plan.vm)}"
    return RefusedError(f"{told}; nothing was changed", hint=hint)


def _is_silent(seen: Seen) -> bool:
    return seen.target is Target.UNKNOWN


_SOURCE = {
    Source.RUNS: "its QEMU has it",
    Source.LEAVING: "its QEMU is sending it",
    Source.GAVE: "its QEMU has given it away",
    Source.GONE: "its QEMU is gone",
    Source.UNKNOWN: "nobody answers",
}
_TARGET = {
    Target.WAITS: "its QEMU waits for it",
    Target.LOADED: "its QEMU has it, and does not run it",
    Target.RAN: "its QEMU runs it",
    Target.GONE: "its QEMU is gone",
    Target.UNKNOWN: "nobody answers",
}


async def go_back(ctx: Context, lost: Collection[str] = ()) -> None:
    """Release all that is held. Raises EsdError if something could not be; the journal keeps that."""
    failures = await hold.roll_back(ctx, lost)
    plan = ctx.plan
    if failures:
        what = f"not all could be undone ({failures[0]}): see whether {plan.vm} runs on {plan.source.host}"
        hint = f"qemu-esd rollback {plan.id}; docs/recovery.md names what may be left"
        raise EsdError(what, hint=f"{failures[0].hint}; then: {hint}" if failures[0].hint else hint)
    if not ctx.journal.story.held:
        ctx.enter(State.ROLLED_BACK)
