"""A peer that says what it is told to over a socket pair: for garbage that no real server sends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Sequence

from qemu_esd import nbd
from qemu_esd.nbd import ALLOCATION_DEPTH, Client

ACK, INFO, META_CONTEXT = 1, 3, 4
GO, STRUCTURED_REPLY, SET_META_CONTEXT = 7, 8, 10
DATA, HOLE, STATUS, ERROR = 1, 2, 5, 0x8001
DEPTH_ID = 7
ALL_FLAGS = 1 | 4 | 128 | 1024  # has flags, flush, unfragmented reads, cache
SIZE = 1 << 20

SECONDS = 30.0  # far beyond anything here: a hang, not a slow machine

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def greeting(flags: int = 3, magic: bytes = b"NBDMAGICIHAVEOPT") -> bytes:
    return magic + struct.pack(">H", flags)


def option_reply(option: int, kind: int, data: bytes = b"", *, size: int | None = None) -> bytes:
    length = len(data) if size is None else size
    return struct.pack(">QIII", 0x3E889045565A9, option, kind, length) + data


def context(number: int, name: str) -> bytes:
    return option_reply(SET_META_CONTEXT, META_CONTEXT, struct.pack(">I", number) + name.encode())


def export(size: int = SIZE, flags: int = ALL_FLAGS) -> bytes:
    return option_reply(GO, INFO, struct.pack(">HQH", 0, size, flags))


def blocks(low: int = 512, preferred: int = 4096, high: int = 1 << 25) -> bytes:
    return option_reply(GO, INFO, struct.pack(">HIII", 3, low, preferred, high))


STRUCTURED = greeting() + option_reply(STRUCTURED_REPLY, ACK)
CONTEXTS = STRUCTURED + context(DEPTH_ID, "qemu:allocation-depth") + option_reply(SET_META_CONTEXT, ACK)
HANDSHAKE = CONTEXTS + export() + blocks() + option_reply(GO, ACK)


def simple(cookie: int, errno: int = 0) -> bytes:
    return struct.pack(">IIQ", 0x67446698, errno, cookie)


def chunk(cookie: int, kind: int, data: bytes = b"", *, done: bool = True, size: int | None = None) -> bytes:
    length = len(data) if size is None else size
    return struct.pack(">IHHQI", 0x668E33EF, done, kind, cookie, length) + data


def status(*extents: tuple[int, int], number: int = DEPTH_ID) -> bytes:
    return struct.pack(">I", number) + b"".join(struct.pack(">II", *extent) for extent in extents)


def data(offset: int, content: bytes) -> bytes:
    return struct.pack(">Q", offset) + content


def error(errno: int, message: bytes = b"", *, size: int | None = None) -> bytes:
    return struct.pack(">IH", errno, len(message) if size is None else size) + message


@contextlib.asynccontextmanager
async def peer(handshake: bytes, *answers: bytes, hang_up: bool = True) -> AsyncIterator[Streams]:
    """The client's end of a connection to one that says `handshake`, then an answer after each request.

    Then it ends its half (`hang_up`) or keeps silent; it reads on until the client closes, in both cases.
    """
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    talk = asyncio.create_task(_talk(theirs, handshake, answers, hang_up))
    try:
        yield reader, writer
    finally:
        writer.close()
        await talk


@contextlib.asynccontextmanager
async def connected(handshake: bytes, *answers: bytes) -> AsyncIterator[Client]:
    """A client of a peer that says all this and then keeps silent: whoever waits for more would hang."""
    async with asyncio.timeout(SECONDS), peer(handshake, *answers, hang_up=False) as streams:
        async with nbd.open(*streams, "disk", [ALLOCATION_DEPTH]) as client:
            yield client


async def _talk(theirs: socket.socket, handshake: bytes, answers: Sequence[bytes], hang_up: bool) -> None:
    reader, writer = await asyncio.open_connection(sock=theirs)
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        writer.write(handshake)
        if answers:
            await _skip_options(reader)
        for answer in answers:
            await reader.readexactly(28)
            writer.write(answer)
        if hang_up:
            writer.write_eof()
        while await reader.read(4096):
            pass
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _skip_options(reader: asyncio.StreamReader) -> None:
    await reader.readexactly(4)
    option = 0
    while option != GO:
        _, option, length = struct.unpack(">8sII", await reader.readexactly(16))
        await reader.readexactly(length)
