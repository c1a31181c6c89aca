"""What is measured: the rows of the benchmark, and the disk and the load that every guest of it has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from images import pattern
from qemu_esd.errors import UsageError
from qemu_esd.units import GIB, MIB, TIB, human_bytes, parse_size
from tests.integration.support.drives import Drive
from tests.integration.support.machine import Machine

# Light, and inside the data: 100 writes and 100 reads of what was written per second, all of them verified.
AREA = 16 * MIB
LOAD = f"esd.mode=verify esd.rate=200 esd.mix=50/50/0 esd.spread=0 esd.area={AREA}"


@dataclass(frozen=True)
class Row:
    """A disk of `size` bytes whose first `data` bytes hold data; the rest is a hole."""

    size: int
    data: int

    @property
    def name(self) -> str:
        return f"{_short(self.size)}, {'full' if self.data == self.size else _short(self.data) + ' of data'}"

    def drive(self) -> FrontDrive:
        return FrontDrive("vda", seed=7, size=self.size, data=self.data)


def parse_row(text: str) -> Row:
    """A row of "SIZE" (full) or "SIZE:DATA", as in 1T:256M. Raises UsageError."""
    size, _, data = text.partition(":")
    row = Row(parse_size(size), parse_size(data or size))
    if not AREA <= row.data <= row.size or row.data % MIB or row.size % MIB:
        raise UsageError(f"{text!r} is not a disk", hint=f"whole MiB, data at least {_short(AREA)}, as in 1T:256M")
    return row


def _short(count: int) -> str:
    return human_bytes(count).replace(".0 ", " ")


@dataclass(frozen=True)
class FrontDrive(Drive):
    """A raw disk with data in front and a hole behind it."""

    data: int = 0

    def make(self, machine: Machine) -> Path:
        path = machine.real(self.path)
        pattern.fill(path, self.data, self.seed)
        with path.open("r+b") as file:
            file.truncate(self.size)
            # Written now, or the kernel writes it while we measure.
            os.fsync(file.fileno())
        return path


DATA = 256 * MIB
ROWS = (*(Row(size, DATA) for size in (GIB, 4 * GIB, 16 * GIB, TIB)), Row(GIB, GIB))
QUICK = (Row(GIB, 32 * MIB), Row(4 * GIB, 32 * MIB))
