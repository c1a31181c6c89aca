"""What a caller can rely on: whose answer is whose, cancelling, leaving, and what is never sent."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from qemu_esd import nbd
from qemu_esd.nbd import ALLOCATION_DEPTH, Extent, NbdDisconnected, NbdError, NbdUnsupportedError, stream
from tests.nbd import fake
from tests.nbd.fake import CONTEXTS, HANDSHAKE, SECONDS, chunk, connected, peer, simple

GIB = 1 << 30


class BrokenWriter:
    """A stream that tells on writing that it is broken, as those of asyncssh do."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.broken = False

    def write(self, data: bytes, /) -> None:
        if self.broken:
            raise BrokenPipeError("channel not open for sending")
        self._writer.write(data)

    def close(self) -> None:
        self._writer.close()

    async def wait_closed(self) -> None:
        await self._writer.wait_closed()


def of_export(size: int, flags: int = fake.ALL_FLAGS) -> bytes:
    return CONTEXTS + fake.export(size, flags) + fake.blocks() + fake.option_reply(fake.GO, fake.ACK)


async def test_answers_in_another_order() -> None:
    late = chunk(2, fake.ERROR, fake.error(5, b"bad sector")) + simple(1)
    async with connected(HANDSHAKE, b"", late) as client:
        good, bad = await asyncio.gather(client.flush(), client.cache(512, 512), return_exceptions=True)
    assert good is None
    assert isinstance(bad, NbdError)
    assert (bad.offset, bad.length, bad.errno) == (512, 512, 5)
    assert "bad sector" in str(bad)


async def test_an_error_among_other_chunks_is_the_answer() -> None:
    answer = chunk(1, fake.ERROR, fake.error(5), done=False) + chunk(1, 0)
    async with connected(HANDSHAKE, answer, simple(2)) as client:
        with pytest.raises(NbdError):
            await client.read_small(0, 512)
        await client.flush()


async def test_an_unknown_errno_is_read_as_einval() -> None:
    async with connected(HANDSHAKE, simple(1, 0xFFFFFFFF), simple(2)) as client:
        with pytest.raises(NbdError) as caught:
            await client.cache(0, 4096)
        assert caught.value.errno == 22
        await client.flush()


async def test_the_answer_of_a_cancelled_call_is_dropped() -> None:
    async with connected(HANDSHAKE, b"", simple(1) + simple(2)) as client:
        given_up = asyncio.create_task(client.flush())
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        await client.cache(0, 4096)


async def test_a_read_in_pieces_and_holes() -> None:
    answer = (
        chunk(1, fake.HOLE, struct.pack(">QI", 2048, 2048), done=False)
        + chunk(1, fake.DATA, fake.data(0, b"a" * 2048), done=False)
        + chunk(1, 0)
    )
    async with connected(HANDSHAKE, answer) as client:
        assert await client.read_small(0, 4096) == b"a" * 2048 + bytes(2048)


async def test_an_extent_beyond_the_range_is_cut() -> None:
    async with connected(HANDSHAKE, chunk(1, fake.STATUS, fake.status((512, 2), (1 << 30, 1)))) as client:
        found = await client.block_status(ALLOCATION_DEPTH, 4096, 8192)
    assert found == [Extent(4096, 512, 2), Extent(4608, 7680, 1)]


async def test_leaving_frees_whoever_waits() -> None:
    async with connected(HANDSHAKE) as client:
        waiting = asyncio.create_task(client.flush())
        await asyncio.sleep(0)
    for late in (waiting, client.flush()):
        with pytest.raises(NbdDisconnected, match="closed here"):
            await late


async def test_a_stream_that_breaks_on_writing() -> None:
    async with asyncio.timeout(SECONDS), peer(HANDSHAKE, hang_up=False) as (reader, plain):
        writer = BrokenWriter(plain)
        async with nbd.open(reader, writer, "disk", [ALLOCATION_DEPTH]) as client:
            waiting = asyncio.create_task(client.flush())
            await asyncio.sleep(0)
            writer.broken = True
            for call in (client.flush(), waiting):
                with pytest.raises(NbdDisconnected, match="not open for sending"):
                    await call


async def test_leaving_a_peer_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CLOSE_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    theirs.send(HANDSHAKE)
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.write(bytes(1 << 24))  # far more than the socket takes; the rest of it can never be sent
    with theirs:
        async with asyncio.timeout(SECONDS):
            async with nbd.open(reader, writer, "disk", [ALLOCATION_DEPTH]):
                pass
    writer.transport.abort()


async def test_a_command_that_is_not_offered_is_not_sent() -> None:
    async with connected(of_export(fake.SIZE, flags=1)) as client:
        for command in (client.cache(0, 512), client.flush()):
            with pytest.raises(NbdUnsupportedError):
                await command


@pytest.mark.parametrize(
    "asked", [(-512, 1024), (0, 0), (0, 4 * GIB), (8 * GIB, 512), (1, 512), (0, 511), (8 * GIB - 512, 1024)]
)
async def test_a_request_against_the_rules_is_never_sent(asked: tuple[int, int]) -> None:
    async with connected(of_export(8 * GIB)) as client:
        with pytest.raises(ValueError, match=f"{asked[1]} bytes at {asked[0]}"):
            await client.block_status(ALLOCATION_DEPTH, *asked)


async def test_a_read_is_small_or_not_sent() -> None:
    async with connected(HANDSHAKE) as client:
        with pytest.raises(ValueError, match="not small"):
            await client.read_small(0, 8192)


async def test_the_end_of_an_odd_disk_can_be_reached() -> None:
    async with connected(of_export(4096 + 100), simple(1)) as client:
        await client.cache(4096, 100)


async def test_a_map_without_contexts_is_not_asked_for() -> None:
    bare = fake.STRUCTURED + fake.export() + fake.option_reply(fake.GO, fake.ACK)
    async with asyncio.timeout(SECONDS), peer(bare, hang_up=False) as streams:
        async with nbd.open(*streams, "disk") as client:
            with pytest.raises(ValueError, match="without metadata contexts"):
                await client.map()
