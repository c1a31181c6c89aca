"""A report as one HTML page that needs nothing else: no script, no network."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from xml.etree.ElementTree import Element, tostring

from qemu_esd.cli import chart
from qemu_esd.cli.chart import Bar, Line
from qemu_esd.cli.map_svg import CLASSES
from qemu_esd.cli.markup import STYLE, svg, tag
from qemu_esd.cli.render_map import Cell
from qemu_esd.cli.render_outcome import bytes_or_unknown
from qemu_esd.cli.render_plan import TRANSPORTS, graph_of
from qemu_esd.cli.render_status import STATES
from qemu_esd.model.plan import Transport
from qemu_esd.model.progress import Progress
from qemu_esd.model.trail import Snapshot
from qemu_esd.nbd import cells
from qemu_esd.report import Report, Stall, rates
from qemu_esd.units import human_bytes, human_seconds

# Nothing may be fetched, whatever a name in it looks like.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
* { box-sizing: border-box; } html { background: var(--back); color: var(--fore); }
body { font: 16px/1.5 ui-sans-serif, system-ui, sans-serif; margin: 0 auto; max-width: 52rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: 0.5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; }
p { margin: 0.5rem 0; } .dim { color: var(--dim); } .error { color: var(--bad); } .warning { color: var(--mixed); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: break-word; }
td:last-child { overflow-wrap: anywhere; } th { color: var(--dim); font-weight: 600; white-space: nowrap; }
.times td:first-child { white-space: nowrap; width: 1%; }
svg { width: 100%; height: auto;
  display: block; } .drawn { max-width: 30rem; margin: 0.5rem 0; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 0.5rem; margin: 1rem 0; }
dl div { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 0.5rem 0.8rem; }
dt { color: var(--dim); font-size: 0.8rem; } dd { margin: 0; font-size: 1.2rem; font-weight: 600; }
.key { display: inline-block; width: 0.8rem; height: 0.8rem; border-radius: 2px; margin: 0 0.3rem 0 0.8rem; }
.key.local { background: var(--local); } .key.mixed { background: var(--mixed); }
.key.remote { background: var(--remote); } .key.hole { background: var(--hole); }
summary { cursor: pointer; color: var(--dim); }
"""
_LETTERS = {cells.LOCAL: Cell.LOCAL, cells.MIXED: Cell.MIXED, cells.REMOTE: Cell.REMOTE, cells.HOLE: Cell.HOLE}
_MOMENTS = {"arrived": "when the guest had arrived", "end": "at the end of a command"}
_LATER = ("settle", "discard")
_STRIP, _COLUMNS = 5, 128


def page(report: Report) -> str:
    """The whole of it as text."""
    plan = report.plan
    title = f"{plan.vm}: {plan.source.host} to {plan.target.host}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _http_equiv(),
        tag("title", title),
        tag("style", STYLE + chart.STYLE + _STYLE),
    )
    body = tag("body", tag("h1", title), *_head(report), *_sections(report))
    html = tostring(tag("html", head, body, lang="en"), encoding="unicode", method="html")
    return f"<!doctype html>\n{html}\n"


def _http_equiv() -> Element:
    element = tag("meta", content=_POLICY)
    element.set("http-equiv", "Content-Security-Policy")
    return element


def _head(report: Report) -> Iterator[Element]:
    state = STATES.get(report.state, report.state)
    when = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(report.began))
    yield tag("p", f"Migration {report.plan.id}, begun {when}: {state}.", class_="dim")
    figures = {"stood still": "downtime", "ran on the target after": "resumed-after", "the command took": "total"}
    shown = [(words, report.figures[name]) for words, name in figures.items() if name in report.figures]
    yield (
        tag("dl", *(tag("div", tag("dt", words), tag("dd", human_seconds(ms / 1000))) for words, ms in shown))
        if shown
        else tag("p", "It did not come so far that the guest ran on the target.")
    )


def _sections(report: Report) -> Iterator[Element]:
    for heading, content in (
        ("Warnings and errors", _said(report)),
        ("Timeline", _timeline(report)),
        ("Memory", _memory(report)),
        ("Disks", _disks(report)),
        ("Stalls", _stalls(report.stalls, report)),
        ("What was where", _residency(report)),
        ("Plan", _plan(report)),
        ("Versions", _versions(report)),
        ("Steps of the command", _steps(report)),
        ("Journal", _journal(report)),
    ):
        elements = list(content)
        if elements:
            yield tag("section", tag("h2", heading), *elements)


def _said(report: Report) -> Iterator[Element]:
    if not report.said:
        yield tag("p", "None.")
        return
    rows = [(_at(one.seconds), tag("span", one.level, class_=one.level), one.text) for one in report.said]
    yield table(("at", "", "what was said"), rows, "times")


def _at(seconds: float) -> str:
    return human_seconds(max(seconds, 0.0))


def _timeline(report: Report) -> Iterator[Element]:
    ended = [phase for phase in report.phases if phase.ended is not None]
    moved = [each for each in ended if each.name not in _LATER]
    bars = [Bar(each.name, each.began, (each.ended or 0.0) - each.began, each.name == "switchover") for each in moved]
    yield frame(chart.bars(bars, "the phases of the migration"))
    if "downtime" in report.figures:
        stop = human_seconds(report.figures["downtime"] / 1000)
        yield tag("p", f"The guest stood still for {stop}, in the switchover.", class_="dim")
    # Beside what takes its time afterwards the move would not be seen.
    later = [Bar(each.name, 0.0, (each.ended or 0.0) - each.began) for each in ended if each.name in _LATER]
    if later:
        yield tag("p", "Afterwards, on another scale:")
        yield frame(chart.bars(later, "what came after the move"))
    for each in report.phases:
        if each.ended is None:
            yield tag("p", f"{each.name} began after {_at(each.began)}, and has no end here.")


def _memory(report: Report) -> Iterator[Element]:
    row = report.samples.get("RAM", ())
    if not row:
        yield tag("p", "No sample: it took less than half a second, or was seen by another controller.", class_="dim")
        return
    dirty = tuple((seconds, float(one.dirty_rate)) for seconds, one in row if one.dirty_rate is not None)
    sent = _points(row)
    if len(sent) > 1 or dirty:
        lines = [Line("sent", sent), Line("written by the guest", dirty)]
        yield frame(chart.chart(lines, "memory over time, in bytes per second", _per_second))
    last = row[-1][1]
    yield tag(
        "p", f"{human_bytes(last.done)} were sent for {human_bytes(report.plan.guest.memory)} of memory.", class_="dim"
    )


def _points(row: Sequence[tuple[float, Progress]]) -> tuple[tuple[float, float], ...]:
    return tuple((point.seconds, point.rate) for point in rates(row))


def _per_second(rate: float) -> str:
    return f"{human_bytes(rate)}/s"


def _disks(report: Report) -> Iterator[Element]:
    rows = {what: row for what, row in report.samples.items() if what != "RAM"}
    if not rows:
        yield tag("p", "No data of them was moved while anybody looked on.", class_="dim")
        return
    lines = [Line(what, _points(row)) for what, row in rows.items()]
    yield frame(chart.chart(lines, "how fast each disk was gone over, holes included", _per_second))
    done = [
        Line(what, tuple((seconds, 100 * one.done / one.total) for seconds, one in row if one.total))
        for what, row in rows.items()
    ]
    yield frame(
        chart.chart(done, "how much of each disk was gone over, in percent", lambda percent: f"{percent:.0f} %")
    )


def _stalls(found: Iterable[Stall], report: Report) -> Iterator[Element]:
    rows = [(_at(one.began), one.what, human_seconds(one.took)) for one in found]
    if rows:
        yield table(("from", "of", "nothing came for"), rows)
    elif report.samples:
        yield tag("p", "Something came all the time.")


def _residency(report: Report) -> Iterator[Element]:
    if not report.snapshots:
        return
    keys = [part for cell in Cell for part in (tag("span", class_=f"key {CLASSES[cell]}"), str(cell))]
    yield tag("p", *keys, class_="dim")
    for seconds, one in report.snapshots:
        here, there = bytes_or_unknown(one.local_bytes), bytes_or_unknown(one.remote_bytes)
        words = f", {_MOMENTS.get(one.moment, one.moment)} ({_at(seconds)}): {here} here, {there} on the source"
        yield tag("p", tag("strong", one.disk), f"{words}, of {human_bytes(one.virtual_bytes)}")
        if one.cells:
            yield _strip(one)


def _strip(one: Snapshot) -> Element:
    """The map of a disk; neighbours of one kind are one bar."""
    elements = list[Element]()
    for row in range(0, len(one.cells), _COLUMNS):
        start = 0
        letters = one.cells[row : row + _COLUMNS]
        for end in range(1, len(letters) + 1):
            if end == len(letters) or letters[end] != letters[start]:
                kind = CLASSES[_LETTERS.get(letters[start], Cell.HOLE)]
                place = {"x": start * _STRIP, "y": row // _COLUMNS * (_STRIP + 1), "width": (end - start) * _STRIP}
                elements.append(tag("rect", **place, height=_STRIP, class_=kind))
                start = end
    height = -(-len(one.cells) // _COLUMNS) * (_STRIP + 1)
    label = f"{one.disk} {_MOMENTS.get(one.moment, one.moment)}, {human_bytes(one.cell_bytes)} a cell"
    return svg(_COLUMNS * _STRIP, height, *elements, label=label)


def _plan(report: Report) -> Iterator[Element]:
    plan = report.plan
    via_ssh = plan.transport is Transport.SSH
    words = [
        ("memory", human_bytes(plan.guest.memory)),
        ("machine", plan.guest.machine_type),
        ("transport", TRANSPORTS[plan.transport]),
        ("disks by", plan.source.address if via_ssh else f"{plan.source.address}, port {plan.nbd_port}"),
        ("memory to", plan.target.address if via_ssh else f"{plan.target.address}, port {plan.ram_port}"),
        ("limit of a background move", _limit(report)),
        ("downtime asked for", f"{plan.downtime_ms} ms" if plan.downtime_ms else "QEMU's own"),
    ]
    yield table(("", ""), words)
    rows = [
        (each.disk.id, str(each.handler), human_bytes(each.disk.size), human_bytes(each.disk.data), graph_of(each))
        for each in plan.disks
    ]
    yield table(("disk", "policy", "size", "data", "graph"), rows)


def _limit(report: Report) -> str:
    bandwidth = report.plan.bandwidth
    if bandwidth is None:
        return "none"
    return _per_second(bandwidth) if isinstance(bandwidth, int) else "as fast as the guest bears"


def _versions(report: Report) -> Iterator[Element]:
    source = ".".join(map(str, report.plan.guest.version))
    known = report.versions.qemu if report.versions else {report.plan.source.host: source}
    rows = [(f"QEMU on {host}", version) for host, version in known.items()]
    if report.versions:
        rows.insert(0, ("qemu-esd", report.versions.controller))
    yield table(("", ""), rows)


def _steps(report: Report) -> Iterator[Element]:
    if report.steps:
        rows = [Bar(step.name, step.began, step.took) for step in report.steps]
        yield frame(chart.bars(rows, "the steps of the command, by its trace"))


def _journal(report: Report) -> Iterator[Element]:
    rows = [(_at(seconds), what) for seconds, what in report.events]
    events = table(("at", "what was written down"), rows, "times")
    yield tag("details", tag("summary", f"{len(rows)} lines"), events)


def frame(picture: Element) -> Element:
    """A picture as large as its words are to be."""
    return tag("div", picture, class_="drawn")


def table(headings: Sequence[str], rows: Iterable[Sequence[str | Element]], kind: str | None = None) -> Element:
    """In a frame of its own, so that a wide one does not make the page wider than a phone. `kind` "times": the first
    column is never broken."""
    head = [tag("tr", *(tag("th", heading) for heading in headings))] if any(headings) else []
    body = [tag("tr", *(tag("td", cell) for cell in row)) for row in rows]
    return tag("div", tag("table", *head, *body, class_=kind), class_="wide")
