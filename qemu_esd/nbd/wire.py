"""The bytes of the NBD protocol: numbers, and functions that pack and parse. No I/O.

Source: doc/proto.md of the NetworkBlockDevice/nbd project. Every integer is big-endian.
What a server sends is not to be trusted: parsers raise NbdProtocolError, never anything else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum, IntFlag

from qemu_esd.nbd.errors import NbdProtocolError

MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF

FIXED_NEWSTYLE = 1
NO_ZEROES = 2

ERROR_BIT_OF_OPTION = 1 << 31
ERROR_BIT_OF_CHUNK = 1 << 15
CHUNK_DONE = 1
INFO_EXPORT = 0
INFO_BLOCK_SIZE = 3

# EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN; any other is to be read as EINVAL
ERRNOS = frozenset({1, 5, 12, 22, 28, 75, 95, 108})

MAX_STRING = 4096
MAX_OPTION_REPLY = MAX_STRING + 4
MAX_ERROR_CHUNK = 6 + MAX_STRING + 8
MAX_STATUS_CHUNK = 4 + 8 * (1 << 20)
MAX_MIN_BLOCK = 1 << 16
DEFAULT_MAX_BLOCK = 1 << 25
MAX_EXPORT_SIZE = (1 << 63) - 1


class Command(IntEnum):
    READ = 0
    DISC = 2
    FLUSH = 3
    CACHE = 5
    BLOCK_STATUS = 7


class CommandFlag(IntFlag):
    NONE = 0
    DF = 4


class ExportFlag(IntFlag):
    """Transmission flags of an export; bits without a name here are kept and mean nothing to us."""

    HAS_FLAGS = 1
    READ_ONLY = 2
    SEND_FLUSH = 4
    SEND_DF = 128
    SEND_CACHE = 1024


class Option(IntEnum):
    GO = 7
    STRUCTURED_REPLY = 8
    SET_META_CONTEXT = 10


class OptionReply(IntEnum):
    ACK = 1
    INFO = 3
    META_CONTEXT = 4


class Chunk(IntEnum):
    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5


def request(command: Command, cookie: int, offset: int, length: int, flags: CommandFlag) -> bytes:
    return struct.pack(">IHHQQI", REQUEST_MAGIC, flags, command, cookie, offset, length)


def option(code: Option, data: bytes) -> bytes:
    return OPTION_MAGIC + struct.pack(">II", code, len(data)) + data


def go(export: str) -> bytes:
    return _string(export) + struct.pack(">HH", 1, INFO_BLOCK_SIZE)


def meta_query(export: str, contexts: Sequence[str]) -> bytes:
    return _string(export) + struct.pack(">I", len(contexts)) + b"".join(map(_string, contexts))


def parse_meta_context(data: bytes) -> tuple[int, str]:
    """Id and name of a context; of too few bytes the name is empty, which is nobody's."""
    return int.from_bytes(data[:4], "big"), text(data[4:])


def parse_info_export(data: bytes) -> tuple[int, ExportFlag]:
    """Size in bytes and flags of an export."""
    size, flags = _unpack("info about the export", ">QH", data)
    if size > MAX_EXPORT_SIZE:
        raise NbdProtocolError(what="info about the export", detail=f"a size of {size} bytes")
    return size, ExportFlag(flags)


def parse_info_block_size(data: bytes) -> tuple[int, int]:
    """Smallest and largest block in bytes."""
    low, preferred, high = _unpack("info about block sizes", ">III", data)
    if low.bit_count() != 1 or low > MAX_MIN_BLOCK or high < max(low, preferred):
        raise NbdProtocolError(what="info about block sizes", detail=f"{low}, {preferred}, {high}")
    return low, high


def parse_error(data: bytes) -> tuple[int, str]:
    """Error number and message of an error chunk. More can follow the message; it is of no use to us."""
    if len(data) < 6:
        raise NbdProtocolError(what="error chunk", detail=f"{len(data)} bytes, not at least 6")
    errno, size = struct.unpack_from(">IH", data)
    if errno == 0 or 6 + size > len(data):
        raise NbdProtocolError(what="error chunk", detail=f"errno {errno}, a message of {size} bytes")
    return errno, text(data[6 : 6 + size])


def parse_status(data: bytes) -> tuple[int, Iterator[tuple[int, int]]]:
    """Context id, and (length, flags) of each extent."""
    if len(data) < 12 or len(data) % 8 != 4:
        raise NbdProtocolError(what="block status chunk", detail=f"a payload of {len(data)} bytes")
    return int.from_bytes(data[:4], "big"), struct.iter_unpack(">II", data[4:])


def parse_hole(data: bytes) -> tuple[int, int]:
    """Offset and length of a hole in a read."""
    offset, length = _unpack("hole chunk", ">QI", data)
    return offset, length


def text(data: bytes) -> str:
    """A server's words, safe to print: no control characters, never a decoding error."""
    words = data.decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)


def _string(words: str) -> bytes:
    data = words.encode()
    if len(data) > MAX_STRING:
        raise ValueError(f"an NBD string of {len(data)} bytes; the protocol allows {MAX_STRING}")
    return struct.pack(">I", len(data)) + data


def _unpack(what: str, layout: str, data: bytes) -> tuple[int, ...]:
    if len(data) != struct.calcsize(layout):
        raise NbdProtocolError(what=what, detail=f"{len(data)} bytes, not {struct.calcsize(layout)}")
    return struct.unpack(layout, data)
