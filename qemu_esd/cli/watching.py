"""`status --watch`: the same again and again, as a screen that stays in place, or as a line per change."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import time
import tty
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from qemu_esd.cli import render, status_table
from qemu_esd.cli.render_status import guest_page
from qemu_esd.cli.running import with_words
from qemu_esd.view import GuestView

EVERY_SECONDS = 2.0
LEAVE = b"q"
# Besides those of guests: the headings, how many guests more there are, the time.
_OTHER_ROWS = 3

Look = Callable[[], Awaitable[Sequence[GuestView]]]


@dataclass(frozen=True)
class Observation:
    """Guests at one moment, by a steady clock (s), and how fast their data came since the one before (bytes/s)."""

    seconds: float
    guests: tuple[GuestView, ...]
    rates: Mapping[str, int] = field(default_factory=dict)


def after(before: Observation | None, guests: Sequence[GuestView], seconds: float) -> Observation:
    """A further observation. A guest that has moved, or of which not all is known, has no rate."""
    if before is None:
        return Observation(seconds, tuple(guests))
    former = {guest.vm: guest for guest in before.guests}
    pairs = [(former[guest.vm], guest) for guest in guests if guest.vm in former]
    rates = {now.vm: rate for then, now in pairs if (rate := _rate(then, now, seconds - before.seconds)) is not None}
    return Observation(seconds, tuple(guests), rates)


def _rate(before: GuestView, now: GuestView, seconds: float) -> int | None:
    then, since = status_table.amounts(before), status_table.amounts(now)
    if then is None or since is None or before.host != now.host or seconds <= 0:
        return None
    return max(int((since.local - then.local) / seconds), 0)


async def watch(look: Look, *, one: bool) -> None:
    """Until `q`, or a signal. `one`: it is a single guest, and has the whole screen."""
    if sys.stdout.isatty():
        await _on_a_screen(look, one)
    else:
        await _in_lines(look)


async def _in_lines(look: Look) -> None:
    shown, seen = dict[str, tuple[object, ...]](), None
    while True:
        seen = after(seen, await look(), time.monotonic())
        for guest in seen.guests:
            if shown.get(guest.vm) != (now := status_table.matters(guest)):
                shown[guest.vm] = now
                told = status_table.line(guest, seen.rates.get(guest.vm))
                render.show(Text(f"{time.strftime('%H:%M:%S')} {told}", no_wrap=True))
        await asyncio.sleep(EVERY_SECONDS)


async def _on_a_screen(look: Look, one: bool) -> None:
    # What is wrong with the words of the command is told on the screen that was there before.
    seen = after(None, await with_words(_look(look), "asking the hosts"), time.monotonic())
    leaving = asyncio.Event()
    console = Console(highlight=False)
    with _keys(leaving), Live(console=console, screen=True, auto_refresh=False, transient=True) as live:
        while not leaving.is_set():
            live.update(_page(seen, one, console.width, console.height), refresh=True)
            if not await _unless(leaving, asyncio.sleep(EVERY_SECONDS)):
                return
            looking = asyncio.ensure_future(_look(look))
            if not await _unless(leaving, looking):
                return
            seen = after(seen, looking.result(), time.monotonic())


async def _look(look: Look) -> Sequence[GuestView]:
    return await look()


async def _unless(leaving: asyncio.Event, work: Awaitable[object]) -> bool:
    """Wait for `work`; False, and it is cancelled, if somebody wants to leave first."""
    task, key = asyncio.ensure_future(work), asyncio.ensure_future(leaving.wait())
    try:
        await asyncio.wait({task, key}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.is_set():
            return False
        await task
        return True
    finally:
        task.cancel()
        key.cancel()
        await asyncio.gather(task, key, return_exceptions=True)


def _page(seen: Observation, one: bool, width: int, height: int) -> RenderableType:
    if one and seen.guests:
        return Group(guest_page(seen.guests[0], seen.rates.get(seen.guests[0].vm)), "", _footer())
    guests = fitting(seen.guests, width, height - _OTHER_ROWS)
    hidden = len(seen.guests) - len(guests)
    more = f"and {hidden} more, for which there is no room" if hidden else ""
    return Group(status_table.table(guests, seen.rates, width), more, _footer())


def fitting(guests: Sequence[GuestView], width: int, rows: int) -> Sequence[GuestView]:
    """As many as there is room for; where that is not all of them, those first for which something is to be done."""
    urgent = sorted(guests, key=lambda guest: status_table.next_word(guest) == "")
    ends = accumulate(status_table.rows(guest, width) for guest in urgent)
    shown = [guest for guest, end in zip(urgent, ends, strict=True) if end <= rows]
    return guests if len(shown) == len(guests) else shown


def _footer() -> Text:
    return Text(f"{time.strftime('%H:%M:%S')}  q leaves", "dim")


@contextmanager
def _keys(leaving: asyncio.Event) -> Iterator[None]:
    """Hear keys one by one, without showing them. The terminal is as it was afterwards, whatever ends this."""
    if not sys.stdin.isatty():
        yield
        return
    terminal, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(terminal)

    def typed() -> None:
        keys = os.read(terminal, 64)
        # An end of the terminal is one of the watch.
        if not keys or LEAVE in keys.lower():
            leaving.set()

    tty.setcbreak(terminal)
    loop.add_reader(terminal, typed)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
