"""A question to whoever sits at the terminal."""

from __future__ import annotations

import sys

from qemu_esd.cli import render
from qemu_esd.errors import UsageError


def somebody_is_there() -> bool:
    """Whether a question would be read, and could be answered."""
    return sys.stdin.isatty() and sys.stderr.isatty()


async def answered_yes(question: str) -> bool:
    """Wait for a line on stdin, in a way that a signal can end."""
    import asyncio

    render.note(question)
    loop, typed = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(sys.stdin, typed.set)
    except (OSError, ValueError) as error:
        raise UsageError("stdin cannot be asked", hint="add --yes") from error
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
