"""The terminal as a console: a real pseudo terminal on one side, a real socket on the other."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAM = """
import asyncio, sys
from qemu_esd.cli.terminal import be_console
asyncio.run(be_console(sys.argv[1]))
"""
SECONDS = 30


@dataclass(frozen=True)
class Sitting:
    """Somebody at the `terminal` (its master), the guest's end of the console, and the program between them."""

    terminal: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    program: asyncio.subprocess.Process

    def type(self, keys: bytes) -> None:
        os.write(self.terminal, keys)

    async def shown(self, text: bytes) -> None:
        """Return when the terminal has shown `text`."""
        seen = b""
        async with asyncio.timeout(SECONDS):
            while text not in seen:
                seen += await asyncio.to_thread(os.read, self.terminal, 1024)


@asynccontextmanager
async def sitting(tmp_path: Path) -> AsyncIterator[Sitting]:
    guests: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_unix_server(lambda *ends: guests.put_nowait(ends), tmp_path / "console")
    master, slave = os.openpty()
    argv = (sys.executable, "-c", PROGRAM, str(tmp_path / "console"))
    program = await asyncio.create_subprocess_exec(*argv, stdin=slave, stdout=slave, stderr=slave)
    try:
        reader, writer = await asyncio.wait_for(guests.get(), SECONDS)
        # It is at work as soon as something comes through.
        writer.write(b"login: ")
        sitting = Sitting(master, reader, writer, program)
        await sitting.shown(b"login: ")
        before = termios.tcgetattr(slave)
        assert not before[3] & termios.ICANON
        yield sitting
        assert await asyncio.wait_for(program.wait(), SECONDS) == 0
        assert termios.tcgetattr(slave)[3] & termios.ICANON
        writer.close()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
        server.close()
        os.close(slave)
        os.close(master)


async def test_every_key_goes_to_the_guest_until_one_leaves(tmp_path: Path) -> None:
    async with sitting(tmp_path) as now:
        now.type(b"ls\r\x03\x04\x1a")
        assert await asyncio.wait_for(now.reader.readexactly(6), SECONDS) == b"ls\r\x03\x04\x1a"
        now.type(b"last\x1dnot this")
        assert await asyncio.wait_for(now.reader.read(), SECONDS) == b"last"


async def test_what_the_guest_says_is_shown_as_it_is(tmp_path: Path) -> None:
    async with sitting(tmp_path) as now:
        now.writer.write(b"\x1b[31mred\xff\x00")
        await now.shown(b"\x1b[31mred\xff\x00")
        now.type(b"\x1d")


async def test_it_ends_with_the_guest(tmp_path: Path) -> None:
    async with sitting(tmp_path) as now:
        now.writer.close()
