"""Run a command's coroutine so that Ctrl-C, and the end of the terminal, are one orderly cancellation.

asyncio is loaded here and nowhere before: help and mistakes in the words of a command need none, and are told at once.
"""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from qemu_esd.cli import render
from qemu_esd.errors import EsdError
from qemu_esd.log import Format, logger

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
WAIT_SECONDS = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(work: Coroutine[Any, Any, T], waiting: str | None = None) -> T:
    """The result of `work`; asyncio.CancelledError after a signal, when everything in it has been put in order.

    `waiting` is said at a terminal while it takes longer than a second: for work that tells nothing of its progress.
    """
    import asyncio

    return asyncio.run(_guarded(with_words(work, waiting) if waiting else work))


async def with_words(work: Coroutine[Any, Any, T], waiting: str) -> T:
    """As `run` says it."""
    import asyncio

    words = asyncio.ensure_future(_say_later(waiting))
    try:
        return await work
    finally:
        words.cancel()
        await asyncio.gather(words, return_exceptions=True)


async def _say_later(waiting: str) -> None:
    import asyncio

    if not sys.stderr.isatty() or logger.format is Format.JSON:
        return
    await asyncio.sleep(WAIT_SECONDS)
    try:
        for second in itertools.count(1):
            print(f"\r{waiting} ... {second} s (Ctrl-C leaves it)", end="", file=sys.stderr, flush=True)
            await asyncio.sleep(1)
    finally:
        # A line of our own is no part of what the command says.
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def is_interruption(end: BaseException) -> bool:
    """Whether it is the cancellation that `run` ends with."""
    loaded = sys.modules.get("asyncio")
    return loaded is not None and isinstance(end, loaded.CancelledError)


@contextmanager
def stopped(what: str, hint: str) -> Iterator[None]:
    """An interruption in here becomes an error that says what it has led to, and the command to go on."""
    try:
        yield
    except BaseException as end:
        if not is_interruption(end):
            raise
        raise EsdError(f"stopped: {what}", hint=hint) from None


async def _guarded(work: Coroutine[Any, Any, T]) -> T:
    import asyncio

    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    stop = _Stop(task)
    for number in _SIGNALS:
        # Ignored is what nohup asks for.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop)
    try:
        return await work
    except asyncio.CancelledError:
        # The loop ends now, and with it our handlers: what is still to be said must not be cut off.
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        raise


class _Stop:
    """Cancels a task once. A second cancellation would break off the undoing that the first has begun."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._said = False

    def __call__(self) -> None:
        if not self._said:
            self._said = True
            self._task.cancel()
        else:
            render.note("stopping already: this puts things in order first")
