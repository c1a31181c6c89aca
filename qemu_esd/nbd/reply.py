"""The answer to one request, put together from its chunks. No I/O.

A reply knows what may come in answer to its request and how large, so that a chunk is judged by its
header before a byte of its payload is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from errno import EINVAL
from typing import Generic, TypeVar

from qemu_esd.nbd import wire
from qemu_esd.nbd.errors import NbdError, NbdProtocolError
from qemu_esd.nbd.extents import Extent, Range, clip
from qemu_esd.nbd.wire import Chunk, Command

T = TypeVar("T")
MAX_ERRORS = 16  # error chunks without an end must not go on for ever


class Reply(ABC, Generic[T]):
    """Errors and limits, common to all replies. `sizes` are the content chunks and their largest payload."""

    def __init__(self, command: Command, asked: Range, sizes: Mapping[int, int]) -> None:
        self.command = command
        self.asked = asked
        self._sizes = {Chunk.NONE: 0, **sizes}
        self._errors: list[tuple[int, str]] = []

    def limit(self, kind: int) -> int:
        """The largest payload, in bytes, of a chunk of this kind."""
        if kind & wire.ERROR_BIT_OF_CHUNK:
            return wire.MAX_ERROR_CHUNK
        if kind not in self._sizes:
            raise self.broken(f"a chunk of kind {kind}")
        return self._sizes[kind]

    def accept(self, kind: int, payload: bytes) -> None:
        """Take one chunk that is within its limit."""
        if kind & wire.ERROR_BIT_OF_CHUNK:
            self._fail(*wire.parse_error(payload))
        elif kind != Chunk.NONE:
            self._add(kind, payload)

    def accept_simple(self, errno: int) -> None:
        """Take a simple reply, which is all there is."""
        if errno:
            self._fail(errno, "")

    def finish(self) -> None:
        """The last chunk is here: NbdProtocolError if something is missing."""
        if not self._errors:
            self._check()

    @property
    def failed(self) -> bool:
        """The server has answered with an error."""
        return bool(self._errors)

    def value(self) -> T:
        """What was asked for. NbdError if the server said so."""
        if self._errors:
            errno, detail = self._errors[0]
            what = f"NBD {self.command.name.lower()}"
            raise NbdError(errno, self.asked.offset, self.asked.length, what=what, detail=detail)
        return self._value()

    def broken(self, detail: str) -> NbdProtocolError:
        return NbdProtocolError(what=f"reply to NBD {self.command.name.lower()}", detail=detail)

    def _fail(self, errno: int, detail: str) -> None:
        if len(self._errors) == MAX_ERRORS:
            raise self.broken("errors without an end")
        self._errors.append((errno if errno in wire.ERRNOS else EINVAL, detail))

    @abstractmethod
    def _add(self, kind: int, payload: bytes) -> None: ...

    @abstractmethod
    def _check(self) -> None: ...

    @abstractmethod
    def _value(self) -> T: ...


class PlainReply(Reply[None]):
    """Done, or an error."""

    def __init__(self, command: Command, asked: Range) -> None:
        super().__init__(command, asked, {})

    def _add(self, kind: int, payload: bytes) -> None:
        raise self.broken(f"a chunk of kind {kind}")

    def _check(self) -> None:
        pass

    def _value(self) -> None:
        return None


class StatusReply(Reply[dict[int, list[Extent]]]):
    """The extents per context id, from the start of the asked range on, cut at its end."""

    def __init__(self, asked: Range, contexts: frozenset[int]) -> None:
        super().__init__(Command.BLOCK_STATUS, asked, {Chunk.BLOCK_STATUS: wire.MAX_STATUS_CHUNK})
        self._wanted = contexts
        self._maps: dict[int, list[Extent]] = {}

    def _add(self, kind: int, payload: bytes) -> None:
        context, described = wire.parse_status(payload)
        if context not in self._wanted or context in self._maps:
            raise self.broken(f"context {context}, which nobody asked for or which was answered already")
        self._maps[context] = clip(self._extents(described), self.asked.end)

    def _extents(self, described: Iterable[tuple[int, int]]) -> list[Extent]:
        extents = []
        offset = self.asked.offset
        for length, flags in described:
            if length == 0 or offset >= self.asked.end:
                raise self.broken(f"an extent of {length} bytes at {offset}")
            extents.append(Extent(offset, length, flags))
            offset += length
        return extents

    def _check(self) -> None:
        if self._maps.keys() != self._wanted:
            raise self.broken("a metadata context was left out")

    def _value(self) -> dict[int, list[Extent]]:
        return self._maps


class DataReply(Reply[bytes]):
    """The bytes of a small read: pieces in any order that cover the asked range exactly."""

    def __init__(self, asked: Range) -> None:
        sizes: dict[int, int] = {Chunk.OFFSET_DATA: 8 + asked.length, Chunk.OFFSET_HOLE: 12}
        super().__init__(Command.READ, asked, sizes)
        self._pieces: dict[int, bytes] = {}
        self._missing = asked.length

    def _add(self, kind: int, payload: bytes) -> None:
        offset, data = self._piece(kind, payload)
        self._missing -= len(data)
        if not data or self._missing < 0:
            raise self.broken(f"{len(data)} bytes at {offset}")
        self._pieces[offset] = data

    def _piece(self, kind: int, payload: bytes) -> tuple[int, bytes]:
        if kind == Chunk.OFFSET_DATA:
            return int.from_bytes(payload[:8], "big"), payload[8:]
        offset, length = wire.parse_hole(payload)
        if length > self.asked.length:  # before so many zeroes are made
            raise self.broken(f"a hole of {length} bytes")
        return offset, bytes(length)

    def _check(self) -> None:
        offset = self.asked.offset
        for start, data in sorted(self._pieces.items()):
            if start != offset:
                raise self.broken(f"data at {start} where {offset} was due")
            offset += len(data)
        if offset != self.asked.end:
            raise self.broken(f"no data from {offset} on")

    def _value(self) -> bytes:
        return b"".join(data for _, data in sorted(self._pieces.items()))
