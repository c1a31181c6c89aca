"""Commands of ours, run as a user runs them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("qemu-esd")
UNDO_SECONDS = 60.0


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
