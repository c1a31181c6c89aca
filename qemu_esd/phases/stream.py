"""While QEMU sends a guest: wait for how far it is, and for whatever means that it will not come so far."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, NoReturn

from qemu_esd.errors import EsdError, QemuError, QemuGoneError, TimedOutError
from qemu_esd.hosts import files
from qemu_esd.phases import places
from qemu_esd.phases.context import Context, Progress
from qemu_esd.qmp import machine, migrate
from qemu_esd.qmp.session import Events, Session

PROGRESS_SECONDS = 0.5
END_SECONDS = 1.0
# TCP itself gives a dead link up after a quarter of an hour; a gap of ten seconds may cost it twenty.
STALL_SECONDS = 30.0
# Run states of a source that QEMU itself has stopped for the switchover, or that has not stopped.
_ON_ITS_WAY = ("running", "finish-migrate", "postmigrate")


async def unless(wanted: Coroutine[Any, Any, None], *hindrances: Coroutine[Any, Any, NoReturn]) -> None:
    """Wait for `wanted`, or raise what the first of the `hindrances` raises."""
    tasks = [asyncio.ensure_future(each) for each in (*hindrances, wanted)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        # Where several have ended it is for the same reason, and the first of them can tell it best.
        await next(task for task in tasks if task.done())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def reached(ctx: Context, source: Session, target: Session, seen: Events, status: str, seconds: float) -> None:
    """Returns when the source says `status`; raises because it says `failed`, or because the target has ended."""
    waiting = asyncio.ensure_future(migrate.wait_status(seen, frozenset({status, "failed", "cancelled"}), seconds))
    gone = asyncio.ensure_future(target.closed())
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done() or waiting.result() != status:
            raise await _failure(ctx, source)
    except TimedOutError as error:
        raise _given_up(ctx, "the end of the move of memory", seconds) from error
    finally:
        waiting.cancel()
        gone.cancel()


async def stops(ctx: Context, source: Session, events: Events) -> NoReturn:
    """Raises when the guest does not run any more, for another reason than the switchover: it would run again there.

    The stream ends at once: a memory that nobody writes to is soon over, and a guest that was paused is then given
    another state by QEMU, from which it can only run.
    """
    why = await _stopped(source, events)
    with suppress(QemuError, QemuGoneError):
        await migrate.cancel(source)
    raise EsdError(f"{ctx.plan.vm} did not keep running while it moved: {why}", host=source.host)


async def _stopped(source: Session, events: Events) -> str:
    """Why: paused by somebody, stopped by an error, shut down."""
    ended = "its QEMU has died"
    try:
        while True:
            event = await events.get()
            if event["event"] == "SHUTDOWN":
                ended = "it has shut down" if event["data"]["guest"] else "its QEMU was told to end"
            elif (state := await machine.run_state(source)) not in _ON_ITS_WAY:
                return f"it is {state} since"
    except QemuGoneError:
        return ended


async def deafness(target: Session) -> NoReturn:
    """Raises when the target does not answer. It is asked while it loads the guest: an answer may take a tenth of a
    second then, for which the guest would stand still if it was awaited first.
    """
    # One that has ended is told of by `reached`, with its last words.
    with suppress(QemuGoneError):
        await machine.run_state(target)
    await asyncio.Event().wait()
    raise AssertionError


async def stands_still(ctx: Context, source: Session) -> NoReturn:
    """Reports how much memory has moved, which has no event; raises TimedOutError when there is no progress."""
    moved, since = -1, time.monotonic()
    while time.monotonic() - since < STALL_SECONDS:
        now = await migrate.progress(source)
        if now.transferred != moved:
            moved, since = now.transferred, time.monotonic()
        total = now.transferred + now.remaining
        ctx.report(Progress("RAM", now.transferred, total, now.dirty_rate, now.expected_ms))
        await asyncio.sleep(PROGRESS_SECONDS)
    raise _given_up(ctx, "any progress of the guest's memory", STALL_SECONDS)


async def tell_end(ctx: Context, source: Session) -> None:
    """Reports how much memory has moved in all. Where the source does not tell any more, nobody misses it."""
    with suppress(EsdError, TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await _tell_end(ctx, source)


async def _tell_end(ctx: Context, source: Session) -> None:
    moved = (await migrate.progress(source)).transferred
    ctx.report(Progress("RAM", moved, moved))


def _given_up(ctx: Context, what: str, seconds: float) -> TimedOutError:
    source, target = ctx.plan.source.host, ctx.plan.target.host
    return TimedOutError(what, seconds, host=source, hint=f"see that {source} reaches {target}, then migrate again")


async def _failure(ctx: Context, source: Session) -> EsdError:
    """Why the stream ended, in the words of both QEMUs."""
    now = await migrate.progress(source)
    folder = ctx.plan.target.paths.unit(places.guest_unit(ctx.plan).name)
    log = await files.read(await ctx.target(), f"{folder}/log") or b""
    words = [now.error, *log.decode(errors="replace").strip().splitlines()[-2:]]
    said = "; ".join(word for word in words if word)
    if not said:
        # QEMU 7.2 stops and flushes at the end, and keeps to itself that the flush has failed.
        what = "the guest could not be moved, and its QEMU does not say why; can its disks be flushed?"
        return EsdError(what, host=source.host, hint="read the kernel's log there, mend the cause, then migrate again")
    return EsdError(f"the guest could not be moved: {said}", host=ctx.plan.target.host)
