"""Commands of ours, run as a user runs them: in a shell, or at a terminal of their own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("qemu-esd")
UNDO_SECONDS = 60.0
LEAVE = b"\x1d"  # Ctrl-]


@contextmanager
def started(words: tuple[str, ...], **more: Any) -> Iterator[subprocess.Popen[Any]]:
    """A command of ours. When we are interrupted so is it, and it gets the time to undo what it has begun."""
    child = subprocess.Popen((str(PROGRAM), *words), **{"stdin": subprocess.DEVNULL, **more})
    try:
        yield child
        child.wait()
    except BaseException as error:
        hear_nothing()
        # Ctrl-C reaches every process of the terminal by itself, and twice would be a hurry.
        if not isinstance(error, KeyboardInterrupt):
            child.send_signal(signal.SIGINT)
        _wait_or_kill(child)
        raise


def _wait_or_kill(child: subprocess.Popen[Any]) -> None:
    try:
        child.wait(UNDO_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def hear_nothing() -> None:
    """From here on it is only the way down, which nothing may cut short."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class Terminal:
    """A terminal in which a command runs: what it shows, and what is typed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._shown = b""

    def type(self, text: bytes) -> None:
        os.write(self._descriptor, text)

    def line(self, seconds: float) -> str | None:
        """The next whole line, or None if none comes in time."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._shown:
            if not select.select([self._descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            self._shown += os.read(self._descriptor, 4096)
        line, _, self._shown = self._shown.partition(b"\n")
        return line.decode(errors="replace")


@contextmanager
def console_of(vm: str) -> Iterator[Terminal]:
    """The guest's serial console, as `qemu-esd vm console` shows it in a terminal."""
    ours, theirs = os.openpty()
    try:
        with started(("vm", "console", vm), stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL):
            os.close(theirs)
            terminal = Terminal(ours)
            yield terminal
            terminal.type(LEAVE)
    finally:
        os.close(ours)
