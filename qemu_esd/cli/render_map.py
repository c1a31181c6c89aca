"""The residency map of a disk: rows of cells, each as large a part of the disk as fits the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from rich.text import Text

from qemu_esd.cli.render import printable
from qemu_esd.cli.render_outcome import bytes_or_unknown
from qemu_esd.nbd import Residency
from qemu_esd.nbd.cells import HOLE, LOCAL, MIXED, REMOTE, cell_bytes, cells
from qemu_esd.units import human_bytes
from qemu_esd.view import DiskMap

ROWS = 8
_LABEL = len("1000.0 MiB ")


class Cell(StrEnum):
    """What a part of the disk holds. Holes beside data do not show."""

    LOCAL = "local"
    MIXED = "partly local"
    REMOTE = "remote"
    HOLE = "hole"


_CELLS = {LOCAL: Cell.LOCAL, MIXED: Cell.MIXED, REMOTE: Cell.REMOTE, HOLE: Cell.HOLE}
BLOCKS = {Cell.LOCAL: "█", Cell.MIXED: "▒", Cell.REMOTE: "░", Cell.HOLE: "·"}
ASCII = {Cell.LOCAL: "#", Cell.MIXED: "+", Cell.REMOTE: "-", Cell.HOLE: "."}
_COLOURS = {Cell.LOCAL: "green", Cell.MIXED: "yellow", Cell.REMOTE: "bright_blue", Cell.HOLE: "bright_black"}


@dataclass(frozen=True)
class Grid:
    """Cells of `cell_bytes` each, the last perhaps of less; `columns` in a row."""

    cells: tuple[Cell, ...]
    cell_bytes: int
    columns: int

    def rows(self) -> Iterator[tuple[int, tuple[Cell, ...]]]:
        """Each row with the offset that it begins at."""
        for first in range(0, len(self.cells), self.columns):
            yield first * self.cell_bytes, self.cells[first : first + self.columns]


def grid(residency: Residency, size: int, columns: int) -> Grid:
    """The map of a disk of `size` bytes in at most ROWS rows of `columns` cells."""
    cell = cell_bytes(size, columns * ROWS)
    return Grid(tuple(_CELLS[letter] for letter in cells(residency, size, cell)), cell, columns)


def headline(disk: DiskMap, host: str) -> str:
    """What is said of a disk behind its name."""
    return f" on {host}: {disk.view.handler}, {human_bytes(disk.view.virtual_bytes)}"


def without_map(disk: DiskMap) -> str:
    """What is said of a disk that is all in one place, or whose map is not to be had."""
    here, there = bytes_or_unknown(disk.view.local_bytes), bytes_or_unknown(disk.view.remote_bytes)
    return f"{here} here, {there} on the source"


def amounts(residency: Residency) -> dict[Cell, str]:
    """How much there is of each kind; of cells that hold both nothing is said."""
    return {
        Cell.LOCAL: f" {human_bytes(residency.local_bytes)}",
        Cell.MIXED: "",
        Cell.REMOTE: f" {human_bytes(residency.remote_bytes)}",
        Cell.HOLE: f" {human_bytes(residency.hole_bytes)}",
    }


def picture(disk: DiskMap, host: str, width: int, symbols: Mapping[Cell, str]) -> Text:
    """A disk with its scale and legend, `width` characters wide."""
    view = disk.view
    text = Text.assemble((printable(view.disk), "bold"), f"{headline(disk, host)}\n")
    if disk.residency is None:
        return text.append(f"  {without_map(disk)}\n")
    drawn = grid(disk.residency, view.virtual_bytes, max(8, width - _LABEL - 1))
    for offset, row in drawn.rows():
        text.append(f"{human_bytes(offset):>{_LABEL - 1}} ")
        for cell in row:
            text.append(symbols[cell], _COLOURS[cell])
        text.append("\n")
    text.append_text(_legend(disk.residency, drawn, symbols))
    return text


def _legend(residency: Residency, drawn: Grid, symbols: Mapping[Cell, str]) -> Text:
    """What the symbols mean, and how much there is of each."""
    text = Text(" " * _LABEL)
    for cell, amount in amounts(residency).items():
        text.append(symbols[cell], _COLOURS[cell]).append(f" {cell}{amount}  ")
    return text.append(f"\n{'':{_LABEL}}one cell is {human_bytes(drawn.cell_bytes)}\n")
