"""Findings of `doctor`, and the forecast of a dry run, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text

from qemu_esd.cli.render import hint_text, plain_table, printable, whole_line
from qemu_esd.model.finding import Finding, Level
from qemu_esd.phases.forecast import Forecast
from qemu_esd.units import human_bytes, human_seconds

_MARKS = {Level.GOOD: ("ok", "green"), Level.NOTE: ("note", "yellow"), Level.PROBLEM: ("PROBLEM", "bold red")}


def findings_picture(findings: Sequence[Finding]) -> RenderableType:
    """By host; what is good in a line, the rest with why it matters and what mends it."""
    lines: list[RenderableType] = []
    for host, those in groupby(findings, key=lambda finding: finding.host):
        lines += [whole_line(host, "bold"), *map(finding_text, those)]
    return Group(*lines, _sum(findings))


def finding_text(finding: Finding, of: str = "") -> Text:
    """One finding; `of` says of which host, where that is not told above it."""
    mark, style = _MARKS[finding.level]
    what = f"{of}: {finding.what}" if of else finding.what
    text = whole_line(f"  {mark:8}", style).append(f"{finding.check:10}{printable(what)}", "default")
    if finding.why:
        text.append(f"\n          {printable(finding.why)}", "dim")
    return text.append_text(hint_text(finding.hint, "          ")) if finding.hint else text


def _sum(findings: Iterable[Finding]) -> Text:
    levels = [finding.level for finding in findings]
    problems, notes = levels.count(Level.PROBLEM), levels.count(Level.NOTE)
    if not problems:
        return Text(f"nothing stands in the way of a migration ({_count(notes, 'note')})", "green")
    return Text(f"{_count(problems, 'problem')}, {_count(notes, 'note')}", "bold red")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def forecast_picture(told: Forecast) -> RenderableType:
    """What moves now and later, and how long it takes."""
    table = plain_table("", "now", "later", "at most on the target", right=("now", "later", "at most on the target"))
    table.add_row("memory", human_bytes(told.memory), "-", "-")
    for disk in told.disks:
        worst = human_bytes(disk.worst) if disk.worst else "-"
        table.add_row(printable(disk.disk), human_bytes(disk.moved), _later(disk.later_least, disk.later_most), worst)
    return Group(Text("forecast:", "bold"), table, *(Text(f"  {line}") for line in _times(told)))


def _later(least: int, most: int) -> str:
    if least == most:
        return human_bytes(most)
    return f"up to {human_bytes(most)}" if not least else f"{human_bytes(least)} to {human_bytes(most)}"


def _times(told: Forecast) -> Iterator[str]:
    if told.rate is None or told.memory_seconds is None or told.later_seconds is None:
        yield "how long it takes is not known: the way was not measured"
    else:
        way = f"{human_bytes(told.rate)}/s, {told.round_trip_ms:g} ms there and back"
        yield f"measured from source to target: {way}"
        yield f"memory takes {human_seconds(told.memory_seconds)} at that rate, more if the guest writes much"
        if told.later_seconds:
            yield f"the background move takes {human_seconds(told.later_seconds)}, if nothing else slows it"
    if told.downtimes_known:
        yield f"downtime: {told.downtime_ms:g} ms, the median of {_count(told.downtimes_known, 'migration')} from here"
    else:
        yield f"downtime: about {told.downtime_ms:g} ms, QEMU's limit; none was measured here yet"
