"""A block graph as a picture: each program a panel, users on top, below them what they are on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from xml.etree.ElementTree import Element

from qemu_esd.cli.graph_text import arrows, boxes, crossings, labels
from qemu_esd.cli.markup import svg_file, tag
from qemu_esd.cli.render_graph import in_order, title
from qemu_esd.model.block_graph import BlockGraph, Program

WIDTH, HEIGHT = 200, 56
ACROSS, DOWN = WIDTH + 20, HEIGHT + 40
EDGE, HEAD = 20, 48
_CHARACTERS = 26
# How wide a letter of a title is, at most on average.
_MEAN = 8
_STYLE = """
.panel { fill: var(--panel); stroke: var(--line); }
.box { fill: var(--back); stroke: var(--line); } .user { stroke: var(--local); stroke-width: 2; }
.arrow { fill: none; stroke: var(--dim); } .cross { fill: none; stroke: var(--remote); stroke-width: 2;
  stroke-dasharray: 6 4; } .tip { fill: var(--dim); } .crosstip { fill: var(--remote); }
"""


@dataclass(frozen=True)
class Spot:
    """A place on the grid of a panel: which column, which row, both from 0; a column may be a half one."""

    column: float
    row: int


def spots(program: Program, number: int) -> dict[str, Spot]:
    """A place for each box: below all that are on it, and above the middle of what is below it and has no place yet."""
    below: dict[str, list[str]] = {}
    for one, other, _ in arrows(number, program):
        below.setdefault(one, []).append(other)
    names, forest, rows = boxes(number, program), _Forest(below), _Rows(below)
    roots = side_by_side([names[f"{user.kind} {user.name}"] for user in in_order(program.users)], below)
    for root in roots:
        rows.put(root, 0)
    for box in (names[node.name] for node in program.nodes):
        if box not in rows.placed:
            rows.put(box, 1)
    for box in (*roots, *(names[node.name] for node in program.nodes)):
        forest.put(box)
    return {box: Spot(column, rows.placed[box]) for box, column in forest.placed.items()}


def side_by_side(roots: Iterable[str], below: Mapping[str, Sequence[str]]) -> list[str]:
    """What is on the same boxes stands side by side, in the order of who comes first."""
    groups = list[tuple[set[str], list[str]]]()
    for root in roots:
        reach = _reach(root, below)
        for known, those in groups:
            if known & reach:
                known |= reach
                those.append(root)
                break
        else:
            groups.append((reach, [root]))
    return [root for _, those in groups for root in those]


def _reach(box: str, below: Mapping[str, Sequence[str]]) -> set[str]:
    found, ask = set[str](), [box]
    while ask:
        new = ask.pop()
        if new not in found:
            found.add(new)
            ask += below.get(new, ())
    return found


class _Rows:
    """The row of each box: the longest way down to it."""

    def __init__(self, below: dict[str, list[str]]) -> None:
        self._below = below
        self._way = list[str]()
        self.placed: dict[str, int] = {}

    def put(self, box: str, row: int) -> None:
        # A circle, which no QEMU has, comes to an end.
        if row <= self.placed.get(box, -1) or box in self._way:
            return
        self.placed[box] = row
        self._way.append(box)
        for child in self._below.get(box, ()):
            self.put(child, row + 1)
        self._way.pop()


class _Forest:
    """The column of each box."""

    def __init__(self, below: dict[str, list[str]]) -> None:
        self._below = below
        self._next = 0
        self.placed: dict[str, float] = {}

    def put(self, box: str) -> None:
        if box in self.placed:
            return
        fresh = [child for child in self._below.get(box, ()) if child not in self.placed]
        # Before its children, so that a circle comes to an end here too.
        self.placed[box] = self._next
        for child in fresh:
            self.put(child)
        if fresh:
            self.placed[box] = (self.placed[fresh[0]] + self.placed[fresh[-1]]) / 2
        else:
            self._next += 1


@dataclass(frozen=True)
class _Panel:
    number: int
    program: Program
    left: float
    width: float
    rows: int
    spots: dict[str, Spot]

    def corner(self, box: str) -> tuple[float, float]:
        spot = self.spots[box]
        return self.left + EDGE + spot.column * ACROSS, HEAD + EDGE + spot.row * DOWN


def svg(graph: BlockGraph) -> str:
    """The graph as a file of its own."""
    panels = list(_panels(graph.programs))
    height = HEAD + EDGE + max(panel.rows for panel in panels) * DOWN + EDGE
    corners = {box: panel.corner(box) for panel in panels for box in panel.spots}
    drawn = [element for panel in panels for element in _panel(panel, height)]
    for panel in panels:
        for one, other, word in arrows(panel.number, panel.program):
            drawn += _arrow(corners[one], corners[other], word)
    drawn += [_crossing(corners[one], corners[other]) for one, other in crossings(graph)]
    width = panels[-1].left + panels[-1].width + EDGE
    label = f"the block graph of {graph.vm}"
    return svg_file(width, height + EDGE, _tips(), *drawn, label=label, style=_STYLE)


def _panels(programs: Iterable[Program]) -> Iterator[_Panel]:
    left = float(EDGE)
    for number, program in enumerate(programs):
        placed = spots(program, number)
        columns = max((spot.column for spot in placed.values()), default=0) + 1
        rows = max((spot.row for spot in placed.values()), default=0) + 1
        width = max(columns * ACROSS + EDGE, _MEAN * len(title(program)) + 2 * EDGE, 2 * ACROSS + EDGE)
        yield _Panel(number, program, left, width, rows, placed)
        left += width + EDGE


def _panel(panel: _Panel, height: float) -> Iterator[Element]:
    yield tag("rect", x=panel.left, y=EDGE, width=panel.width, height=height - EDGE, rx=8, class_="panel")
    yield tag("text", title(panel.program), x=panel.left + EDGE, y=EDGE + 24, class_="name")
    for row, line in enumerate(wrap(panel.program.problem or "", int((panel.width - 2 * EDGE) / _MEAN))):
        yield tag("text", line, x=panel.left + EDGE, y=HEAD + EDGE + 20 + 18 * row, class_="bad")
    for box, lines in labels(panel.number, panel.program):
        if box in panel.spots:
            yield _box(*panel.corner(box), lines, is_user="u" in box)


def _box(x: float, y: float, lines: list[str], *, is_user: bool) -> Element:
    whole = tag("title", ", ".join(lines))
    frame = tag("rect", x=x, y=y, width=WIDTH, height=HEIGHT, rx=4, class_=f"box{' user' if is_user else ''}")
    words = [
        tag("text", _short(line), x=x + 8, y=y + 16 + 16 * row, class_="mono" if row == 0 else "mono dim")
        for row, line in enumerate(_wrapped(lines))
    ]
    return tag("g", whole, frame, *words)


def _wrapped(lines: list[str]) -> list[str]:
    """One long line becomes up to three."""
    return lines if len(lines) > 1 else wrap(lines[0], _CHARACTERS)[:3]


def _short(text: str) -> str:
    """Both ends of it: names that begin alike end differently."""
    if len(text) <= _CHARACTERS + 1:
        return text
    half = _CHARACTERS // 2
    return f"{text[:half]}…{text[-half:]}"


def _arrow(one: tuple[float, float], other: tuple[float, float], word: str) -> Iterator[Element]:
    start, end = (one[0] + WIDTH / 2, one[1] + HEIGHT), (other[0] + WIDTH / 2, other[1])
    bend = (start[1] + end[1]) / 2
    path = (
        f"M{start[0]:.0f},{start[1]:.0f} C{start[0]:.0f},{bend:.0f} {end[0]:.0f},{bend:.0f} {end[0]:.0f},{end[1]:.0f}"
    )
    yield tag("path", d=path, class_="arrow", marker_end="url(#tip)")
    if word:
        yield tag("text", word, x=end[0] + 6, y=end[1] - 8, class_="mono dim")


def _crossing(one: tuple[float, float], other: tuple[float, float]) -> Element:
    """From the side of the client to the nearer side of the export."""
    right = other[0] > one[0]
    start = (one[0] + (WIDTH if right else 0), one[1] + HEIGHT / 2)
    end = (other[0] + (0 if right else WIDTH), other[1] + HEIGHT / 2)
    bend = (start[0] + end[0]) / 2
    path = (
        f"M{start[0]:.0f},{start[1]:.0f} C{bend:.0f},{start[1]:.0f} {bend:.0f},{end[1]:.0f} {end[0]:.0f},{end[1]:.0f}"
    )
    return tag("path", d=path, class_="cross", marker_end="url(#crosstip)")


def _tips() -> Element:
    def tip(name: str) -> Element:
        made = tag("marker", tag("path", d="M0,0 L8,4 L0,8 z", class_=name), id=name, orient="auto")
        made.attrib |= {"markerWidth": "8", "markerHeight": "8", "refX": "8", "refY": "4"}
        return made

    return tag("defs", tip("tip"), tip("crosstip"))
