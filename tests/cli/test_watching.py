"""`status --watch` at a real pseudo terminal: a screen that stays in place, and a terminal that is then as before."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from qemu_esd import view
from qemu_esd.cli.watching import fitting

PROGRAM = """
import asyncio, sys
from qemu_esd.cli import status, watching
from qemu_esd import api, view
watching.EVERY_SECONDS = 0.05
numbers = iter(range(10**9))
async def look(vm=None):
    number = next(numbers)
    if sys.argv[1] == "slow" and number:
        await asyncio.Event().wait()
    disk = view.DiskView("vda", "s", "on-demand", "local", 10**9, 10**6 * number, 10**9 - 10**6 * number, True)
    return (
        view.GuestView(None, f"vm{number}", None, "b", False, "local", None, None, None, (disk,), "b", "up", None),
        view.of_absent("lost", "b", "unreachable", f"{'long ' * 20}to mend it: qemu-esd END"),
    )
api.look_at_guests = look
status._watch(None)
"""
SECONDS = 30
SCREEN, BACK = b"\x1b[?1049h", b"\x1b[?1049l"


@asynccontextmanager
async def watching(how: str = "quick") -> AsyncIterator[tuple[int, int, asyncio.subprocess.Process]]:
    """The terminal's two ends, and the program at it."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    environment = {**os.environ, "TERM": "xterm"}
    argv = (sys.executable, "-c", PROGRAM, how)
    program = await asyncio.create_subprocess_exec(*argv, stdin=slave, stdout=slave, stderr=slave, env=environment)
    try:
        yield master, slave, program
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
        os.close(slave)
        os.close(master)


async def shown(terminal: int, text: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(SECONDS):
        while text not in seen:
            seen += await asyncio.to_thread(os.read, terminal, 4096)
    return seen


async def ended(terminal: int, program: asyncio.subprocess.Process) -> int:
    """Its exit status; what it says is taken meanwhile, and the screen that was there before must be back."""
    await shown(terminal, BACK)
    return await asyncio.wait_for(program.wait(), SECONDS)


def is_as_ever(slave: int) -> bool:
    return bool(termios.tcgetattr(slave)[3] & termios.ICANON) and bool(termios.tcgetattr(slave)[3] & termios.ECHO)


async def test_q_leaves_and_the_terminal_is_as_it_was() -> None:
    async with watching() as (master, slave, program):
        seen = await shown(master, b"vm3")
        assert SCREEN in seen
        assert b"qemu-esd END" in seen
        # No flicker: what is there is written over, and never wiped out first.
        assert b"\x1b[2J" not in seen.split(b"vm1", 1)[1]
        assert not is_as_ever(slave)
        os.write(master, b"xq")
        assert await ended(master, program) == 0
        assert is_as_ever(slave)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_does_the_same(number: signal.Signals) -> None:
    async with watching() as (master, slave, program):
        await shown(master, b"vm2")
        program.send_signal(number)
        assert await ended(master, program) == 0
        assert is_as_ever(slave)


async def test_q_leaves_while_a_host_is_silent() -> None:
    async with watching("slow") as (master, slave, program):
        await shown(master, b"q leaves")
        os.write(master, b"q")
        assert await ended(master, program) == 0
        assert is_as_ever(slave)


async def test_without_a_terminal_there_are_lines() -> None:
    pipe = asyncio.subprocess.PIPE
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, "quick", stdout=pipe, stderr=pipe)
    assert program.stdout is not None
    async with asyncio.timeout(SECONDS):
        lines = [(await program.stdout.readline()).decode() for _ in range(4)]
    program.send_signal(signal.SIGTERM)
    await asyncio.wait_for(program.communicate(), SECONDS)
    assert program.returncode == 0
    assert [line.split(" ", 1)[1].split(",")[0] for line in lines] == ["vm0 on b", "lost on b", "vm1 on b", "vm2 on b"]
    assert "\x1b" not in "".join(lines)


def test_a_screen_has_those_first_for_which_something_is_to_be_done() -> None:
    calm = [view.of_absent(f"vm{number}", "b", "local", None) for number in range(9)]
    lost = view.of_absent("vm9", "b", "unreachable", "no answer" * 10)
    assert fitting([*calm, lost], 80, 12) == [*calm, lost]
    assert fitting([*calm, lost], 80, 5) == [lost, *calm[:2]]
