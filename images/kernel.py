"""The kernel out of its compressed image: an emulated guest would take most of a second of each boot to unpack it.

QEMU starts what comes out as it is (an ELF file with the entry of PVH). Where a kernel is compressed is told by the
header of the image: https://docs.kernel.org/arch/x86/boot.html, payload_offset. Only the standard library.
"""

from __future__ import annotations

import struct

SETUP_SECTORS, PAYLOAD = 0x1F1, 0x248
SECTOR = 512
# What `lz4 -l` writes: blocks, each after its length. The kernel has its unpacked length behind them.
LZ4, TRAILER = b"\x02\x21\x4c\x18", 4
# A length of so much in its half byte goes on in further bytes, and each of so much in one more.
HALF_FULL, FULL = 15, 255
SHORTEST_COPY = 4


def unpacked(image: bytes) -> bytes | None:
    """The ELF file in `image`, or None where that is not compressed by LZ4."""
    start = (image[SETUP_SECTORS] + 1) * SECTOR
    offset, length = struct.unpack_from("<II", image, PAYLOAD)
    payload = memoryview(image)[start + offset : start + offset + length - TRAILER]
    if payload[: len(LZ4)] != LZ4:
        return None
    parts, at = [], len(LZ4)
    while at < len(payload):
        (size,) = struct.unpack_from("<I", payload, at)
        parts.append(_block(bytes(payload[at + 4 : at + 4 + size])))
        at += 4 + size
    return b"".join(parts)


def _block(packed: bytes) -> bytes:
    """One block of LZ4: bytes as they are, then a copy of some that came before, and so on."""
    out, at = bytearray(), 0
    while True:
        token = packed[at]
        literals, at = _length(packed, at + 1, token >> 4)
        out += packed[at : at + literals]
        at += literals
        if at == len(packed):
            return bytes(out)
        distance = packed[at] | packed[at + 1] << 8
        length, at = _length(packed, at + 2, token & HALF_FULL)
        _copy(out, distance, length + SHORTEST_COPY)


def _length(packed: bytes, at: int, length: int) -> tuple[int, int]:
    """A length that begins with this half byte, and where it ends."""
    more = length == HALF_FULL
    while more:
        length += packed[at]
        more = packed[at] == FULL
        at += 1
    return length, at


def _copy(out: bytearray, distance: int, length: int) -> None:
    """What is copied may reach into what the copy itself makes: then it repeats."""
    start = len(out) - distance
    piece = bytes(out[start : start + length])
    out += (piece * (length // len(piece) + 1))[:length]
