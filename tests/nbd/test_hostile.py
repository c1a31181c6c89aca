"""A server that lies in its answers: an error for all who wait, at once, and never much memory."""

from __future__ import annotations

import asyncio
import struct
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest

from qemu_esd.nbd import (
    ALLOCATION_DEPTH,
    Client,
    NbdDisconnected,
    NbdMapTooLargeError,
    NbdProtocolError,
    walk,
    wire,
)
from tests.nbd import fake
from tests.nbd.fake import HANDSHAKE, chunk, connected, simple

MIB = 1 << 20
Ask = Callable[[Client], Awaitable[object]]


def cache(client: Client) -> Awaitable[object]:
    return client.cache(0, 4096)


def read(client: Client) -> Awaitable[object]:
    return client.read_small(0, 4096)


def ask_status(client: Client) -> Awaitable[object]:
    return client.block_status(ALLOCATION_DEPTH, 0, 8192)


LIES: dict[str, tuple[Ask, bytes]] = {
    "bad magic": (cache, bytes(16)),
    "simple reply to a request never sent": (cache, simple(99)),
    "chunk for a request never sent": (cache, chunk(99, 0)),
    "data that nobody asked for": (cache, chunk(1, fake.DATA, fake.data(0, b"x"))),
    "chunk of an unknown kind": (cache, chunk(1, 42)),
    "huge chunk of an unknown kind": (cache, chunk(1, 42, size=1 << 31)),
    "empty chunk with a payload": (cache, chunk(1, 0, b"x")),
    "empty chunk that is not the last": (cache, chunk(1, 0, done=False)),
    "huge error": (cache, chunk(1, fake.ERROR, size=0xFFFFFFFF)),
    "error of two bytes": (cache, chunk(1, fake.ERROR, b"xx")),
    "error that is none": (cache, chunk(1, fake.ERROR, fake.error(0))),
    "error with more message than bytes": (cache, chunk(1, fake.ERROR, fake.error(5, b"x", size=999))),
    "errors without an end": (cache, chunk(1, fake.ERROR, fake.error(5), done=False) * 100),
    "simple reply to a read": (read, simple(1)),
    "nothing read": (read, chunk(1, 0)),
    "huge data": (read, chunk(1, fake.DATA, size=0xFFFFFFFF)),
    "data without an offset": (read, chunk(1, fake.DATA, b"1234")),
    "too little data": (read, chunk(1, fake.DATA, fake.data(0, bytes(4095)))),
    "data of another place": (read, chunk(1, fake.DATA, fake.data(4096, bytes(4096)))),
    "huge hole": (read, chunk(1, fake.HOLE, struct.pack(">QI", 0, 0xFFFFFFFF))),
    "hole of nothing": (read, chunk(1, fake.HOLE, struct.pack(">QI", 0, 0), done=False) * 2),
    "data and hole overlap": (
        read,
        chunk(1, fake.DATA, fake.data(0, bytes(2048)), done=False)
        + chunk(1, fake.HOLE, struct.pack(">QI", 1024, 2048)),
    ),
    "same data twice": (read, chunk(1, fake.DATA, fake.data(0, bytes(2048)), done=False) * 2 + chunk(1, 0)),
    "more data than asked for": (read, chunk(1, fake.DATA, fake.data(0, bytes(4096)), done=False) * 2),
    "simple reply to a status": (ask_status, simple(1)),
    "no status": (ask_status, chunk(1, 0)),
    "huge status": (ask_status, chunk(1, fake.STATUS, size=(8 << 20) + 12)),
    "status without an extent": (ask_status, chunk(1, fake.STATUS, fake.status())),
    "status cut short": (ask_status, chunk(1, fake.STATUS, fake.status((4096, 0), (4096, 1))[:-1])),
    "extent that does not advance": (ask_status, chunk(1, fake.STATUS, fake.status((0, 0), (8192, 1)))),
    "extents beyond what was asked": (ask_status, chunk(1, fake.STATUS, fake.status((8192, 0), (1, 1)))),
    "status of an unknown kind": (ask_status, chunk(1, 42, fake.status((8192, 0)))),
    "status of another context": (
        ask_status,
        chunk(1, fake.STATUS, fake.status((8192, 0), number=99), done=False),
    ),
    "status twice": (ask_status, chunk(1, fake.STATUS, fake.status((8192, 0)), done=False) * 2),
}


@pytest.mark.parametrize(("ask", "answer"), LIES.values(), ids=LIES.keys())
async def test_a_lie_ends_the_connection_for_all(ask: Ask, answer: bytes) -> None:
    tracemalloc.start()
    try:
        async with connected(HANDSHAKE, answer) as client:
            outcomes = await asyncio.gather(ask(client), client.flush(), return_exceptions=True)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    assert [type(outcome) for outcome in outcomes] == [NbdProtocolError, NbdProtocolError]


async def test_the_same_answer_twice_is_a_lie() -> None:
    async with connected(HANDSHAKE, simple(1) * 2) as client:
        calls = (client.cache(0, 4096), client.flush())
        first, second = await asyncio.gather(*calls, return_exceptions=True)
    assert first is None
    assert isinstance(second, NbdProtocolError)


async def test_after_a_lie_every_call_says_so() -> None:
    async with connected(HANDSHAKE, bytes(16)) as client:
        for _ in range(2):
            with pytest.raises(NbdProtocolError):
                await client.flush()


async def test_a_map_that_does_not_advance_is_given_up() -> None:
    crumb = chunk(1, fake.STATUS, fake.status((100, 0)))  # less than the smallest block
    async with connected(HANDSHAKE, crumb) as client:
        with pytest.raises(NbdProtocolError, match="no progress"):
            await client.map()


async def test_a_map_of_crumbs_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_EXTENTS", 100)
    crumbs = (chunk(cookie, fake.STATUS, fake.status((512, cookie % 2))) for cookie in range(1, 200))
    async with connected(HANDSHAKE, *crumbs) as client:
        with pytest.raises(NbdMapTooLargeError):
            await client.map()


async def test_a_fault_of_our_own_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(_: bytes) -> tuple[int, str]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(wire, "parse_error", faulty)
    async with connected(HANDSHAKE, chunk(1, fake.ERROR, fake.error(5))) as client:
        with pytest.raises(NbdDisconnected, match="the reader stopped"):
            await client.flush()
