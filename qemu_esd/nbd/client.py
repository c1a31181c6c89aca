"""One connection to one NBD export, for control and questions; disk data never runs through it.

Requests of several tasks can be in flight at once. A reader task hands each answer to its waiter; when
the connection ends, for whatever reason, every waiter and every later caller gets the reason at once.
A caller that is cancelled leaves its request behind, and the answer is dropped when it comes. A server
that stays connected and silent is the caller's to time out (`asyncio.timeout`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from qemu_esd.nbd import wire
from qemu_esd.nbd.errors import NbdConnectionError, NbdDisconnected, NbdProtocolError, NbdUnsupportedError
from qemu_esd.nbd.extents import Extent, Range
from qemu_esd.nbd.negotiate import Export, negotiate
from qemu_esd.nbd.reply import DataReply, PlainReply, Reply, StatusReply
from qemu_esd.nbd.stream import Reader, Stream, Writer
from qemu_esd.nbd.walk import BY_TIME, MAX_UNTOLD, Maps, Pace, walk
from qemu_esd.nbd.wire import Chunk, Command, CommandFlag, ExportFlag

T = TypeVar("T")
HANDSHAKE_SECONDS = 30.0
SMALL_READ = 4096


@contextlib.asynccontextmanager
async def open(reader: Reader, writer: Writer, export: str, contexts: Sequence[str] = ()) -> AsyncIterator[Client]:
    """Negotiate on an open byte stream, and give the client of `export`. The stream is closed at the end.

    NbdRefusedError when the export or one of the metadata `contexts` is not there; NbdProtocolError when
    the peer is no NBD server; NbdDisconnected when it hangs up or takes more than HANDSHAKE_SECONDS.
    """
    stream = Stream(reader, writer)
    try:
        client = Client(stream, await _handshake(stream, export, contexts))
        try:
            yield client
        finally:
            await client.close()
    finally:
        await stream.close()


async def _handshake(stream: Stream, export: str, contexts: Sequence[str]) -> Export:
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            return await negotiate(stream, export, contexts)
    except TimeoutError:
        detail = f"no end of it within {HANDSHAKE_SECONDS:g} s"
        raise NbdDisconnected(what="NBD handshake", detail=detail) from None


@dataclass(frozen=True)
class _Waiter:
    reply: Reply[Any]  # each waiter's own type, which only its caller knows
    done: asyncio.Future[None]


class Client:
    """See the module. Made by `open()`; offsets and lengths are bytes, multiples of `min_block`.

    Every request raises NbdError when the server answers it with an error, and an NbdConnectionError
    (NbdDisconnected, NbdProtocolError) when the connection has ended.
    """

    def __init__(self, stream: Stream, export: Export) -> None:
        self._stream = stream
        self._export = export
        self._cookies = itertools.count(1)
        self._waiters: dict[int, _Waiter] = {}
        # Requests that have failed and may still be answered, see `_receive_chunk`.
        self._late: set[int] = set()
        self._ended: NbdConnectionError | None = None
        self._task = asyncio.create_task(self._receive())

    @property
    def size(self) -> int:
        return self._export.size

    @property
    def flags(self) -> ExportFlag:
        return self._export.flags

    @property
    def min_block(self) -> int:
        return self._export.min_block

    @property
    def max_block(self) -> int:
        """The largest payload of a read or write; `cache` and `block_status` have none."""
        return self._export.max_block

    async def cache(self, offset: int, length: int) -> None:
        """Have the server read the range: behind a copy-on-read node that makes it local.

        QEMU takes at most 32 MiB at a time, and answers when the data is in the image (not yet flushed).
        """
        self._need(ExportFlag.SEND_CACHE, Command.CACHE)
        await self._call(PlainReply(Command.CACHE, self._range(offset, length)))

    async def flush(self) -> None:
        """What was answered before this call is on stable storage when it returns."""
        self._need(ExportFlag.SEND_FLUSH, Command.FLUSH)
        await self._call(PlainReply(Command.FLUSH, Range(0, 0)))

    async def read_small(self, offset: int, length: int) -> bytes:
        """Read up to 4096 bytes: a proof that the export answers, not a way to move data."""
        if length > max(SMALL_READ, self.min_block):
            raise ValueError(f"a read of {length} bytes is not small")
        # Unfragmented where possible: QEMU answers a failed read of several pieces by hanging up.
        flags = CommandFlag.DF if self.flags & ExportFlag.SEND_DF else CommandFlag.NONE
        return await self._call(DataReply(self._range(offset, length)), flags)

    async def block_status(self, context: str, offset: int, length: int) -> list[Extent]:
        """One request: the extents from `offset` on; they may end before the range does, never after."""
        return list((await self._status(offset, length))[self._known(context)])

    async def map(
        self,
        *contexts: str,
        offset: int = 0,
        length: int | None = None,
        max_untold: int = MAX_UNTOLD,
        pace: Pace = BY_TIME,
    ) -> Maps:
        """The extents of a range (default: to the end of the disk) for each context, in one pass.

        No name means every context of the connection. Neighbours differ in flags. NbdMapTooLargeError if
        there are more than can be held in memory. A piece of which the server cannot tell anything has flags 0; of more
        than `max_untold` such pieces its NbdError is raised.
        """
        names = [self._known(name) for name in contexts or self._export.contexts]
        whole = Range(offset, self.size - offset if length is None else length)
        return await walk(self._status, names, whole, self.min_block, max_untold, pace)

    async def close(self) -> None:
        """Say goodbye and stop. Whoever still waits gets NbdDisconnected."""
        if not self._ended:
            with contextlib.suppress(NbdDisconnected):
                self._stream.write(wire.request(Command.DISC, 0, 0, 0, CommandFlag.NONE))
        self._end(NbdDisconnected(what="NBD connection", detail="closed here"))
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _status(self, offset: int, length: int) -> Mapping[str, Sequence[Extent]]:
        ids = self._export.contexts
        if not ids:
            raise ValueError("the connection was opened without metadata contexts")
        maps = await self._call(StatusReply(self._range(offset, length), frozenset(ids.values())))
        return {name: maps[number] for name, number in ids.items()}

    def _known(self, context: str) -> str:
        if context not in self._export.contexts:
            raise ValueError(f"context {context!r} was not asked for when the connection was opened")
        return context

    def _need(self, flag: ExportFlag, command: Command) -> None:
        if not self.flags & flag:
            what = f"export {self._export.name!r}"
            raise NbdUnsupportedError(what=what, detail=f"does not offer NBD {command.name.lower()}")

    def _range(self, offset: int, length: int) -> Range:
        """The range of a request; ValueError for one that the protocol does not allow to be sent."""
        asked = Range(offset, length)
        if offset < 0 or not 0 < length < 1 << 32 or asked.end > self.size:
            raise ValueError(f"{length} bytes at {offset} of a disk of {self.size} bytes")
        if offset % self.min_block or (length % self.min_block and asked.end != self.size):
            raise ValueError(f"{length} bytes at {offset}: not in blocks of {self.min_block} bytes")
        return asked

    async def _call(self, reply: Reply[T], flags: CommandFlag = CommandFlag.NONE) -> T:
        if self._ended:
            raise self._reason()
        cookie = next(self._cookies)
        waiter = self._waiters[cookie] = _Waiter(reply, asyncio.get_running_loop().create_future())
        asked = reply.asked
        try:
            self._stream.write(wire.request(reply.command, cookie, asked.offset, asked.length, flags))
        except NbdDisconnected as lost:
            self._end(lost)
        await waiter.done
        return reply.value()

    async def _receive(self) -> None:
        try:
            while True:
                await self._receive_one()
        except NbdConnectionError as ended:
            self._end(ended)
        finally:  # a fault of our own must not leave anyone waiting either
            self._end(NbdDisconnected(what="NBD connection", detail="the reader stopped"))

    async def _receive_one(self) -> None:
        magic = int.from_bytes(await self._stream.read(4), "big")
        if magic == wire.SIMPLE_REPLY_MAGIC:
            errno, cookie = struct.unpack(">IQ", await self._stream.read(12))
            self._waiter(cookie).reply.accept_simple(errno)
            self._finish(cookie)
        elif magic == wire.STRUCTURED_REPLY_MAGIC:
            await self._receive_chunk(*struct.unpack(">HHQI", await self._stream.read(16)))
        else:
            raise NbdProtocolError(what="NBD reply", detail=f"magic {magic:#x}")

    async def _receive_chunk(self, flags: int, kind: int, cookie: int, size: int) -> None:
        if cookie in self._late and size <= wire.MAX_STATUS_CHUNK:
            # QEMU ends a request for several maps when it cannot tell the first, and tells of the next all the same.
            self._late.remove(cookie)
            await self._stream.read(size)
            return
        reply = self._waiter(cookie).reply
        if size > reply.limit(kind):
            raise reply.broken(f"a chunk of {size} bytes")
        reply.accept(kind, await self._stream.read(size))
        if flags & wire.CHUNK_DONE:
            self._finish(cookie)
        elif kind == Chunk.NONE:
            raise reply.broken("an empty chunk that is not the last")

    def _waiter(self, cookie: int) -> _Waiter:
        if cookie not in self._waiters:
            raise NbdProtocolError(what="NBD reply", detail=f"to a request {cookie} that was never sent")
        return self._waiters[cookie]

    def _finish(self, cookie: int) -> None:
        reply = self._waiter(cookie).reply
        reply.finish()
        if reply.failed and reply.command is Command.BLOCK_STATUS:
            self._late.add(cookie)
        done = self._waiters.pop(cookie).done
        if not done.done():
            done.set_result(None)

    def _end(self, reason: NbdConnectionError) -> None:
        """Only the first reason counts."""
        if self._ended:
            return
        self._ended = reason
        self._stream.hang_up()
        for waiter in self._waiters.values():
            if not waiter.done.done():
                waiter.done.set_exception(self._reason())

    def _reason(self) -> NbdConnectionError:
        """The reason why the connection ended, as a new exception for each who asks."""
        ended = self._ended or NbdDisconnected(what="NBD connection", detail="not open")
        again = type(ended)(what=ended.what, detail=ended.detail)
        again.__cause__ = ended
        return again
