"""A peer that greets as QEMU does and then lies: an error for whoever waits, soon, and never much memory."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from qemu_esd.errors import EsdError, QemuError, QemuGoneError, TimedOutError
from qemu_esd.hosts.local import LocalHost
from qemu_esd.qmp import session as module
from qemu_esd.qmp.session import open_session

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}\r\n'
)
MIB = 1 << 20


@asynccontextmanager
async def peer(folder: Path, *answers: bytes, greeting: bytes = GREETING, stays: bool = True) -> AsyncIterator[str]:
    """A socket on which somebody greets, agrees to the capabilities, and gives an answer to each further command.

    ID in an answer becomes the id of the command. Then it keeps silent, or leaves.
    """

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError):
            writer.write(greeting)
            for answer in (b'{"return": {}, "id": ID}\n', *answers):
                # One at a time, and without a line's end: the client waits for each answer.
                command = await reader.read(1 << 16)
                writer.write(answer.replace(b"ID", json.dumps(json.loads(command).get("id")).encode()))
                await writer.drain()
            while stays and await reader.read(4096):
                pass
        writer.close()

    async with await asyncio.start_unix_server(speak, folder / "qmp"):
        yield str(folder / "qmp")


LIES = {
    "garbage": b"\xff\x00garbage\r\n",
    "no object": b"[1, 2]\n",
    "cut short": b'{"return": {"status": "run',
    "neither answer nor event": b'{"id": ID}\n',
    "an answer to nobody": b'{"return": {}, "id": "nobody"}\n',
    "an error without words": b'{"error": {}, "id": ID}\n',
    "an error that is none": b'{"error": 5, "id": ID}\n',
    "an event without a name": b'{"event": {"a": 1}}\n',
    "nested without end": b"[" * 200_000 + b"\n",
    "a line without end": b'{"return": "' + b"x" * (64 * MIB),
    "the greeting again": GREETING,
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("stays", [False, True], ids=["leaves", "stays"])
async def test_a_lie_is_an_error_for_whoever_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lie: str, stays: bool
) -> None:
    monkeypatch.setattr(module, "COMMAND_SECONDS", 0.5)
    tracemalloc.start()
    try:
        async with asyncio.timeout(120), peer(folder, LIES[lie], stays=stays) as path:
            async with open_session(LocalHost(), path, "vm") as session:
                with pytest.raises(EsdError) as error:
                    await session.execute("query-status")
            # What the peer itself has in its hands counts too.
            assert tracemalloc.get_traced_memory()[1] < 4 * len(LIES[lie]) + 48 * MIB
    finally:
        tracemalloc.stop()
    assert isinstance(error.value, QemuError | QemuGoneError | TimedOutError)
    assert "vm" in str(error.value) or isinstance(error.value, QemuError)


@pytest.mark.parametrize(
    "greeting",
    [
        b"x" * (32 * MIB) + b"\n",
        b'{"QMP": {"version": {}, "capabilities": 5}}\n',
        b'{"QMP": []}\n',
        b"[" * 200_000 + b"\n",
        b'{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 1}}\n',
    ],
    ids=["giant", "odd", "empty", "nested", "event"],
)
async def test_a_greeting_that_is_none(folder: Path, greeting: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GREETING_SECONDS", 1.0)
    async with asyncio.timeout(120), peer(folder, greeting=greeting) as path:
        with pytest.raises(EsdError):
            async with open_session(LocalHost(), path, "vm") as session:
                await session.execute("query-status")


async def test_a_storm_of_events_keeps_no_answer_back(folder: Path) -> None:
    event = b'{"event": "BLOCK_IO_ERROR", "data": {}, "timestamp": {"seconds": 1, "microseconds": 1}}\n'
    answer = b'{"return": {"status": "running"}, "id": ID}\n'
    async with asyncio.timeout(120), peer(folder, event * 5000 + answer) as path:
        async with open_session(LocalHost(), path, "vm") as session:
            with session.listening("BLOCK_IO_ERROR") as events:
                assert await session.execute("query-status") == {"status": "running"}
                assert (await events.get())["event"] == "BLOCK_IO_ERROR"
