"""A map of a whole disk in a few cells, for pictures."""

from __future__ import annotations

from qemu_esd.nbd.extents import Residency, Where

LOCAL, MIXED, REMOTE, HOLE = "lmrh"
# No cell is smaller than what QEMU moves at once, and none has a ragged size.
SMALLEST = 64 << 10


def cell_bytes(size: int, most: int) -> int:
    """How large each is where a disk of `size` bytes has `most` of them at most: a power of two."""
    cell = SMALLEST
    while cell * most < size:
        cell *= 2
    return cell


def cells(residency: Residency, size: int, cell: int) -> str:
    """A letter for each cell of a disk of `size` bytes. Holes beside data do not show."""
    count = max(1, -(-size // cell))
    held = {where: bytearray(count) for where in Where}
    for part in residency.ranges:
        first, last = part.offset // cell, -(-(part.offset + part.length) // cell)
        held[part.state][first:last] = b"\1" * (last - first)
    return "".join(map(_letter, held[Where.LOCAL], held[Where.REMOTE]))


def _letter(local: int, remote: int) -> str:
    if local and remote:
        return MIXED
    return LOCAL if local else REMOTE if remote else HOLE
