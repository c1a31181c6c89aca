"""The byte stream below the protocol: any reader and writer like asyncio's or asyncssh's."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from qemu_esd.nbd.errors import NbdDisconnected

CLOSE_SECONDS = 2.0


class Reader(Protocol):
    """What is used of asyncio.StreamReader and asyncssh.SSHReader."""

    async def readexactly(self, n: int, /) -> bytes: ...


class Writer(Protocol):
    """What is used of asyncio.StreamWriter and asyncssh.SSHWriter."""

    def write(self, data: bytes, /) -> None: ...

    def close(self) -> None: ...

    async def wait_closed(self) -> None: ...


class Stream:
    """Reads and writes that know one failure: NbdDisconnected."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, size: int) -> bytes:
        # Every library has its own exceptions for a lost stream; all of them mean this one thing.
        try:
            return await self._reader.readexactly(size)
        except asyncio.IncompleteReadError:
            raise NbdDisconnected(what="NBD connection", detail="closed by the peer") from None
        except Exception as lost:
            raise NbdDisconnected(what="NBD connection", detail=str(lost) or type(lost).__name__) from lost

    def write(self, data: bytes) -> None:
        """Queue bytes for the peer.

        Without drain(): everything written here is small and its sender then waits for the answer, so
        that the buffer is bounded by the number of waiters. A drain() would hang with a peer that sends
        garbage and does not read.
        """
        try:
            self._writer.write(data)
        except Exception as lost:
            raise NbdDisconnected(what="NBD connection", detail=str(lost) or type(lost).__name__) from lost

    def hang_up(self) -> None:
        with contextlib.suppress(Exception):
            self._writer.close()

    async def close(self) -> None:
        """Close, and wait until it is done; not for long, a peer that does not read can delay it for ever."""
        self.hang_up()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.wait_closed()
