"""One guest is moved in one way, and what the witness has seen of it. In ms and bytes:

running      from the start of the command until the target's QEMU says RESUME
downtime     from STOP on the source until RESUME on the target
qemu         what the source's QEMU says of its own share of it
silent       by how much the latest of the guest's lines, one a second, was late: what is seen from outside
longest_io   the longest single I/O by the guest's own clock, which stands still while the guest does
link         over the link, both ways, until the command was done
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from images.console import LoadLine
from qemu_esd import api
from qemu_esd.errors import EsdError
from qemu_esd.model.policy import Handler
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Measured, State
from qemu_esd.model.request import Request
from qemu_esd.qmp import jobs
from qemu_esd.qmp.session import Session
from tests.bench.outcome import Sample
from tests.bench.stand import Stand
from tests.bench.witness import Witness, watching
from tests.integration.support.drives import Drive
from tests.integration.support.guest import Guest
from tests.integration.support.machine import Machine

NAME = "bench"
# Lines of the load before the migration (it has settled in) and after it (it has used its disk there).
BEATS = 2
# For boot and lines; the migration itself has a bound of its own.
AROUND_SECONDS = 120.0

# Moves a guest; returns figures of its own, by the names of measures.
Way = Callable[[Guest, Drive, Machine], Awaitable[Mapping[str, float]]]


async def on_demand(guest: Guest, drive: Drive, to: Machine) -> Mapping[str, float]:
    """By qemu-esd. Its figures are those of its journal, in ms since the command."""
    figures = dict[str, float]()

    def hear(event: State | Measured | Progress) -> None:
        if isinstance(event, Measured):
            figures[event.name] = round(event.ms, 1)

    request = Request(guest.name, to.name, Handler.ON_DEMAND, source=guest.machine.name)
    await api.migrate(request, hear, until_settled=False)
    return figures


@dataclass(frozen=True)
class Move:
    """`drive` and `load` of the guest; `way` by which it moves, within `bound` seconds."""

    drive: Drive
    load: str
    way: Way
    bound: float


async def sample(stand: Stand, row: str, way: str, number: int, move: Move) -> Sample:
    """A guest is started on `a`, moved to `b`, and ended there, whatever happens."""
    stand.sweep()
    try:
        return Sample(row, way, number, await _measure(stand, move))
    except _NotArrivedError as late:
        return Sample(row, way, number, None, str(late), unfinished=True)
    except (EsdError, AssertionError, TimeoutError) as error:
        return Sample(row, way, number, None, f"{type(error).__name__}: {error}")
    finally:
        stand.sweep()


class _NotArrivedError(Exception):
    """The migration was not done within its bound."""


async def _measure(stand: Stand, move: Move) -> dict[str, float]:
    guest = Guest(NAME, stand.a, [move.drive])
    await guest.start(stand.image, move.load)
    async with watching(NAME, stand.a, stand.b) as witness:
        async with asyncio.timeout(AROUND_SECONDS):
            await witness.hear(stand.a.name, BEATS)
        before, started = stand.link_bytes(), time.time()
        moving = move.way(guest, move.drive, stand.b)
        own = await _within(move.bound, moving, witness.monitors[stand.a.name])
        link = stand.link_bytes() - before
        async with asyncio.timeout(AROUND_SECONDS):
            await witness.hear(stand.b.name, BEATS)
    return {**own, **_figures(witness, stand.a.name, stand.b.name, started, link)}


async def _within(bound: float, moving: Awaitable[Mapping[str, float]], source: Session) -> Mapping[str, float]:
    try:
        async with asyncio.timeout(bound):
            return await moving
    except TimeoutError as error:
        raise _NotArrivedError(f"not finished within {bound:g} s{await _how_far(source)}") from error


async def _how_far(source: Session) -> str:
    shares = [job.done / job.total for job in (await jobs.running(source)).values() if job.total]
    return f" (the copy had done {shares[0]:.0%})" if shares else ""


def _figures(witness: Witness, source: str, target: str, started: float, link: int) -> dict[str, float]:
    running = witness.events["RESUME", target]
    before = [beat for beat in witness.beats_of(source) if beat.at <= started]
    after = [beat for beat in witness.beats if beat.at > started]
    check(before[-1].line, after[-1].line)
    own = {} if witness.downtime_ms is None else {"qemu": witness.downtime_ms}
    return own | {
        "running": _millis(running - started),
        "downtime": _millis(running - witness.events["STOP", source]),
        "silent": _millis(max(beat.lateness for beat in after) - min(beat.lateness for beat in before)),
        "longest_io": max(beat.line.number("istall") for beat in after),
        "link": link,
    }


def _millis(seconds: float) -> float:
    return round(seconds * 1000, 1)


def check(before: LoadLine, after: LoadLine) -> None:
    """Raises AssertionError: a guest that has lost data has not been moved.

    Before its first write the load may read from the hole, and count it: so `before` is of later.
    """
    for word in ("err", "bad"):
        assert after.number(word) == before.number(word), f"the guest met an error: {dict(after.values)}"
    assert after.number("ops") > before.number("ops"), "the load stands still"
