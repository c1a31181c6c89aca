"""The residency map as a picture: the cells, the scale and the legend of the terminal's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from xml.etree.ElementTree import Element

from qemu_esd.cli.markup import svg_file, tag
from qemu_esd.cli.render_map import Cell, Grid, amounts, grid, headline, without_map
from qemu_esd.units import human_bytes
from qemu_esd.view import DiskMap

COLUMNS = 128
SIDE, EDGE, SCALE = 7, 20, 80
LINE = 22
WIDTH = EDGE + SCALE + COLUMNS * SIDE + EDGE
CLASSES = {Cell.LOCAL: "local", Cell.MIXED: "mixed", Cell.REMOTE: "remote", Cell.HOLE: "hole"}


def svg(vm: str, host: str, disks: Iterable[DiskMap]) -> str:
    """All disks, one below the other, as a file of its own."""
    drawn, top = list[Element](), float(EDGE)
    for disk in disks:
        elements, height = disk_picture(disk, host, top)
        drawn += elements
        top += height + EDGE
    return svg_file(WIDTH, top, *drawn, label=f"where the data of {vm} is")


def disk_picture(disk: DiskMap, host: str, top: float) -> tuple[list[Element], float]:
    """One disk from `top` on, and how high it is."""
    name = tag("text", tag("tspan", disk.view.disk, class_="name"), headline(disk, host), x=EDGE, y=top + 14)
    if disk.residency is None:
        return [name, tag("text", without_map(disk), x=EDGE, y=top + 14 + LINE, class_="dim")], 2 * LINE
    cells = grid(disk.residency, disk.view.virtual_bytes, COLUMNS)
    rows = -(-len(cells.cells) // COLUMNS)
    below = top + LINE + rows * SIDE + 6
    told = [*_cells(cells, top + LINE), *_legend(amounts(disk.residency), below)]
    size = tag("text", f"one cell is {human_bytes(cells.cell_bytes)}", x=EDGE + SCALE, y=below + 2 * LINE, class_="dim")
    return [name, *told, size], LINE + rows * SIDE + 6 + 2 * LINE + 6


def _cells(cells: Grid, top: float) -> Iterator[Element]:
    """Neighbours of one kind are one bar."""
    for row, (offset, kinds) in enumerate(cells.rows()):
        y = top + row * SIDE
        if row % 2 == 0:
            label = human_bytes(offset)
            yield tag("text", label, x=EDGE + SCALE - 8, y=y + 9, class_="mono dim", text_anchor="end")
        column = 0
        for kind, same in groupby(kinds):
            count = len(list(same))
            x = EDGE + SCALE + column * SIDE
            bar = tag("rect", tag("title", kind), x=x, y=y, width=count * SIDE, height=SIDE - 1, class_=CLASSES[kind])
            yield bar
            column += count


def _legend(told: dict[Cell, str], top: float) -> Iterator[Element]:
    for place, (cell, amount) in enumerate(told.items()):
        x = EDGE + SCALE + place * (COLUMNS * SIDE // len(told))
        yield tag("rect", x=x, y=top + 6, width=10, height=10, class_=CLASSES[cell])
        yield tag("text", f"{cell}{amount}", x=x + 16, y=top + 15)
