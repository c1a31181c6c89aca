"""Lines over time, and bars of time, as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from xml.etree.ElementTree import Element

from qemu_esd.cli.markup import svg, tag
from qemu_esd.units import human_seconds

# As wide as a phone, so that the words in it can be read there.
WIDTH, HEIGHT = 400, 160
LEFT, RIGHT, TOP, BOTTOM = 84, 12, 12, 20
NAMES, TIMES, ROW = 112, 76, 24
# Of a letter, on average; of a name in the legend besides; between the rows of that.
_LETTER, _DASH, _LEGEND = 7, 36, 18
# Drawn through, then dashed: so many lines can be told apart.
_KINDS = tuple(f"line{number}{dashed}" for dashed in ("", " dashed") for number in range(4))
STYLE = """
svg .axis { stroke: var(--line); } svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .line0 { stroke: var(--remote); } svg .line1 { stroke: var(--mixed); } svg .line2 { stroke: var(--local); }
svg .line3 { stroke: var(--bad); } svg text.line0 { fill: var(--remote); } svg text.line1 { fill: var(--mixed); }
svg text.line2 { fill: var(--local); } svg text.line3 { fill: var(--bad); } svg text[class^=line] { stroke: none; }
svg circle { fill: none; } svg .dashed { stroke-dasharray: 5 3; }
svg .bar { fill: var(--remote); } svg .pause { fill: var(--bad); }
"""


@dataclass(frozen=True)
class Line:
    """`points` as (seconds, value), in order."""

    name: str
    points: tuple[tuple[float, float], ...]


def chart(lines: Sequence[Line], label: str, say: Callable[[float], str]) -> Element:
    """Lines over a common time; `say` puts a value into words."""
    drawn = [line for line in lines if line.points]
    times = [seconds for line in drawn for seconds, _ in line.points]
    first, last = min(times, default=0.0), max(times, default=1.0)
    top = max((value for line in drawn for _, value in line.points), default=0.0) or 1.0
    scale = _Scale(first, max(last - first, 1e-3), top)
    elements = [*_axes(scale, say)]
    for line, colour in zip(drawn, cycle(_KINDS)):
        elements += _line(line, colour, scale)
    names = legend([line.name for line in drawn])
    for line, colour, (x, row) in zip(drawn, cycle(_KINDS), names):
        elements.append(
            tag(
                "text",
                f"{'╌' if 'dashed' in colour else '—'} {line.name}",
                x=x,
                y=HEIGHT + 14 + row * _LEGEND,
                class_=colour,
            )
        )
    return svg(WIDTH, HEIGHT + (names[-1][1] + 1 if names else 0) * _LEGEND + 4, *elements, label=label)


def legend(names: Sequence[str]) -> list[tuple[int, int]]:
    """Where each name begins, and in which row: side by side, as long as there is room."""
    places = list[tuple[int, int]]()
    x, row = 0, 0
    for name in names:
        width = _DASH + _LETTER * len(name)
        if x and x + width > WIDTH:
            x, row = 0, row + 1
        places.append((x, row))
        x += width
    return places


@dataclass(frozen=True)
class _Scale:
    first: float
    span: float
    top: float

    def x(self, seconds: float) -> float:
        return LEFT + (seconds - self.first) / self.span * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)


def _axes(scale: _Scale, say: Callable[[float], str]) -> Iterator[Element]:
    for part in range(3):
        y = scale.y(scale.top * part / 2)
        yield tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="axis")
        yield tag("text", say(scale.top * part / 2), x=LEFT - 8, y=y + 4, text_anchor="end", class_="dim")
    for part, anchor in enumerate(("start", "middle", "end")):
        seconds = scale.first + scale.span * part / 2
        words = human_seconds(max(seconds, 0.0))
        yield tag("text", words, x=scale.x(seconds), y=HEIGHT - BOTTOM + 18, text_anchor=anchor, class_="dim")


def _line(line: Line, colour: str, scale: _Scale) -> Iterator[Element]:
    if len(line.points) == 1:
        (seconds, value), *_ = line.points
        yield tag("circle", cx=scale.x(seconds), cy=scale.y(value), r=3, class_=colour)
    else:
        path = " ".join(f"{scale.x(seconds):.1f},{scale.y(value):.1f}" for seconds, value in line.points)
        yield tag("polyline", points=path, class_=colour)


@dataclass(frozen=True)
class Bar:
    """From `began` on for `took` seconds; a pause of the guest is drawn as one."""

    name: str
    began: float
    took: float
    is_pause: bool = False


def bars(rows: Sequence[Bar], label: str) -> Element:
    """Each in a row of its own over a common time, with how long it took."""
    last = max((row.began + row.took for row in rows), default=1.0) or 1.0
    room = WIDTH - NAMES - TIMES
    elements = list[Element]()
    for number, row in enumerate(rows):
        y, x = number * ROW, NAMES + row.began / last * room
        width = max(row.took / last * room, 2.0)
        elements.append(tag("text", row.name, x=0, y=y + 16))
        kind = "pause" if row.is_pause else "bar"
        elements.append(tag("rect", x=x, y=y + 5, width=width, height=14, rx=2, class_=kind))
        elements.append(tag("text", human_seconds(row.took), x=x + width + 6, y=y + 16, class_="dim"))
    return svg(WIDTH, len(rows) * ROW + 4, *elements, label=label)
