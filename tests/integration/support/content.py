"""What must be in an image: the oracle that reads images from the machine, with nothing of ours in between."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.pattern import MIB, SECTOR
from tests.integration.support.drives import Drive, tool

_STAMP = struct.Struct("<8sQQQQ")
_WORDS = struct.Struct(f"<{SECTOR // 8}Q")
_MASK = (1 << 64) - 1

Node = Mapping[str, Any]


@dataclass(frozen=True)
class Stamp:
    """What the load writes into a sector: where it belongs, and which of the guest's writes it was."""

    position: int
    sequence: int


def image(path: Path, format: str) -> Node:
    """An image over whatever its header names."""
    return {"driver": format, "file": {"driver": "file", "filename": str(path)}}


def over(path: Path, backing: Node | None) -> Node:
    """A qcow2 over `backing`, whatever its header names."""
    return {**image(path, "qcow2"), "backing": backing}


def flatten(node: Node, into: Path) -> Path:
    """A raw copy of what a chain of images shows."""
    tool("qemu-img", "convert", "-U", "-O", "raw", f"json:{json.dumps(node)}", str(into))
    return into


def crc(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while part := file.read(MIB):
            value = zlib.crc32(part, value)
    return value


def check_pattern(path: Path, drive: Drive) -> None:
    """Nothing but the pattern is on the disk."""
    assert path.stat().st_size == drive.size
    with path.open("rb") as file:
        for offset in range(0, drive.size, MIB):
            part = file.read(MIB)
            assert part == drive.expected(offset, len(part)), f"{path}: the MiB at {offset} is not the pattern"


def later_writes(before: Path, after: Path) -> dict[int, Stamp]:
    """The sectors (by offset) in which two raw images differ; each must be a whole stamp of that place."""
    assert before.stat().st_size == after.stat().st_size
    found = {}
    for offset, old, new in _sectors(before, after):
        if old != new:
            stamp = read_stamp(new)
            assert stamp is not None and stamp.position == offset, (
                f"{after} at {offset}: {new[:32]!r}, was {old[:32]!r}"
            )
            found[offset] = stamp
    return found


def check_content(path: Path, drive: Drive) -> dict[int, Stamp]:
    """Every sector holds the pattern, or a stamp of its place. Returns the stamps by offset."""
    found: dict[int, Stamp] = {}
    with path.open("rb") as file:
        for offset in range(0, drive.size, MIB):
            part = file.read(MIB)
            if part != (want := drive.expected(offset, len(part))):
                found |= _stamps(part, want, offset)
    return found


def _stamps(part: bytes, want: bytes, offset: int) -> dict[int, Stamp]:
    found = {}
    for at in range(0, len(part), SECTOR):
        sector = part[at : at + SECTOR]
        if sector != want[at : at + SECTOR]:
            stamp = read_stamp(sector)
            assert stamp is not None and stamp.position == offset + at, f"at {offset + at}: {sector[:32]!r}"
            found[offset + at] = stamp
    return found


def _sectors(one: Path, other: Path) -> Iterator[tuple[int, bytes, bytes]]:
    """Offset and both contents of the sectors of those MiB that are not alike."""
    with one.open("rb") as old, other.open("rb") as new:
        for start in range(0, one.stat().st_size, MIB):
            left, right = old.read(MIB), new.read(MIB)
            if left != right:
                for at in range(0, len(left), SECTOR):
                    yield start + at, left[at : at + SECTOR], right[at : at + SECTOR]


def read_stamp(sector: bytes) -> Stamp | None:
    """The stamp in a sector, if it is one and whole (images/load/content.c)."""
    magic, position, sequence, _, checksum = _STAMP.unpack_from(sector)
    if magic != b"ESDstamp" or checksum != _checksum(sector):
        return None
    return Stamp(position, sequence)


def _checksum(sector: bytes) -> int:
    total = 0xCBF29CE484222325
    for number, word in enumerate(_WORDS.unpack(sector)):
        total = (total ^ (0 if number == 4 else word)) * 0x100000001B3 & _MASK
        total = (total << 23 | total >> 41) & _MASK
    return total


def facts(path: Path, format: str = "qcow2") -> dict[str, Any]:
    """`qemu-img info`."""
    answer: dict[str, Any] = json.loads(tool("qemu-img", "info", "-U", "--output=json", "-f", format, str(path)))
    return answer


def check_standalone(path: Path) -> None:
    """A qcow2 without a backing file and without a fault."""
    told = facts(path)
    assert "backing-filename" not in told and "full-backing-filename" not in told
    tool("qemu-img", "check", "-q", "-f", "qcow2", str(path))


def allocated(path: Path) -> list[tuple[int, int]]:
    """The (start, length) of what a qcow2 itself holds, whatever lies below it."""
    rows = json.loads(tool("qemu-img", "map", "-U", "--output=json", f"json:{json.dumps(over(path, None))}"))
    return [(row["start"], row["length"]) for row in rows if row["present"]]


def clusters(ranges: list[tuple[int, int]], size: int) -> set[int]:
    """The numbers of the clusters of `size` bytes that `ranges` touch."""
    return {number for start, length in ranges for number in range(start // size, -(-(start + length) // size))}
