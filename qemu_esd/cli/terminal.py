"""The terminal as a guest's serial console: every key goes there, and what it says comes here."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from qemu_esd.errors import QemuGoneError

LEAVE = 0x1D  # Ctrl-]


async def be_console(socket: str) -> None:
    """Until Ctrl-], or the end of the guest. Raises QemuGoneError if nobody listens on `socket`."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError as error:
        raise QemuGoneError(f"the console cannot be reached: {error.strerror}") from error
    with _raw(sys.stdin.fileno()):
        shown = asyncio.ensure_future(_show(reader))
        typed = asyncio.ensure_future(_type(writer))
        try:
            await asyncio.wait({shown, typed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            shown.cancel()
            typed.cancel()
            await asyncio.gather(shown, typed, return_exceptions=True)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Every key as it is, Ctrl-C too."""
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        sys.stderr.write("\n")


async def _show(reader: asyncio.StreamReader) -> None:
    while data := await reader.read(4096):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


async def _type(writer: asyncio.StreamWriter) -> None:
    """Ends at Ctrl-]."""
    terminal, ready, loop = sys.stdin.fileno(), asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(terminal, ready.set)
    try:
        while True:
            await ready.wait()
            ready.clear()
            typed = os.read(terminal, 1024)
            before, leave, _ = typed.partition(bytes([LEAVE]))
            writer.write(before)
            await writer.drain()
            if leave or not typed:
                return
    finally:
        loop.remove_reader(terminal)
