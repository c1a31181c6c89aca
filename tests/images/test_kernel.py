"""The kernel out of its image: what is compressed by LZ4 comes out whole, and nothing else is taken for it."""

from __future__ import annotations

import struct

import pytest

from images import build
from images.build import DEFAULT_CACHE, GuestImage
from images.kernel import LZ4, PAYLOAD, SECTOR, SETUP_SECTORS, unpacked

# Blocks by hand: the half bytes of a token are a number of literals, and of copied bytes without the first four.
BLOCKS = {
    "bytes as they are": (b"\x30abc", b"abc"),
    "a copy of some": (b"\x40abcd\x04\x00" + b"\x10e", b"abcdabcde"),
    "a copy that repeats": (b"\x23ab\x02\x00" + b"\x10c", b"ababababa" + b"c"),
    "many bytes": (b"\xf0\xff\x01" + b"x" * 271, b"x" * 271),
    "a long copy": (b"\x1fa\x01\x00\xff\x00" + b"\x10b", b"a" * (1 + 4 + 15 + 255) + b"b"),
}


def image(payload: bytes, setup_sectors: int = 4) -> bytes:
    """As the boot protocol has it: the payload lies somewhere behind the setup code."""
    whole = bytearray((setup_sectors + 1) * SECTOR) + b"code" + payload
    whole[SETUP_SECTORS] = setup_sectors
    struct.pack_into("<II", whole, PAYLOAD, len(b"code"), len(payload))
    return bytes(whole)


def block(packed: bytes) -> bytes:
    return struct.pack("<I", len(packed)) + packed


@pytest.mark.parametrize(("packed", "plain"), BLOCKS.values(), ids=BLOCKS.keys())
def test_what_lz4_has_packed(packed: bytes, plain: bytes) -> None:
    twice = LZ4 + block(packed) * 2 + struct.pack("<I", 2 * len(plain))
    assert unpacked(image(twice)) == plain * 2


@pytest.mark.parametrize("magic", [b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08\x00"])
def test_nothing_else_is_taken_for_it(magic: bytes) -> None:
    assert unpacked(image(magic + bytes(100))) is None


def test_the_guests_kernel_is_whole(guest_image: GuestImage) -> None:
    """Its image says how long it is; that it boots is what all other tests of the guest show."""
    packed, plain = build._find_inputs(DEFAULT_CACHE).kernel.read_bytes(), guest_image.kernel.read_bytes()
    if plain == packed:
        pytest.skip("this machine's kernel is not compressed by LZ4")
    offset, length = struct.unpack_from("<II", packed, PAYLOAD)
    end = (packed[SETUP_SECTORS] + 1) * SECTOR + offset + length
    assert plain[:4] == b"\x7fELF"
    assert struct.unpack_from("<I", packed, end - 4) == (len(plain),)
