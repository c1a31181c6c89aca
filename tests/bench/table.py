"""Results as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qemu_esd.units import human_bytes
from tests.bench.bench import Bench, Measure
from tests.bench.outcome import Results, Sample, Spread, measured, ratio


def markdown(bench: Bench, results: Results) -> str:
    """One line per row and way, with the ratio of each other way to the first. Medians (least to greatest)."""
    lines = _head(bench)
    for row in results.rows():
        first = results.of(row, bench.base)
        lines.append(_row(bench, row, bench.base, first))
        for way in bench.ways[1:]:
            other = results.of(row, way)
            lines += [_row(bench, "", way, other), _ratios(bench, f"{way} / {bench.base}", other, first)]
    return "\n".join([*lines, "", _caption(bench, results), ""])


def _head(bench: Bench) -> list[str]:
    headings = [measure.heading for measure in bench.measures]
    return [_line([bench.name, "", *headings]), _line(["---"] * (2 + len(headings)))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(bench: Bench, name: str, way: str, samples: Sequence[Sample]) -> str:
    if not any(sample.figures for sample in samples):
        why = samples[-1].why if samples else "not run"
        return _line([name, way, why, *["-"] * (len(bench.measures) - 1)])
    return _line([name, way, *(_cell(measure, measured(samples, measure.name)) for measure in bench.measures)])


def _cell(measure: Measure, seen: Spread | None) -> str:
    if seen is None:
        return "-"
    middle, *ends = map(measure.written, (seen.median, seen.low, seen.high))
    return middle if seen.count == 1 else f"{middle} ({' to '.join(ends)})"


def _ratios(bench: Bench, name: str, over: Sequence[Sample], under: Sequence[Sample]) -> str:
    return _line(["", f"*{name}*", *(_times(ratio(over, under, measure.name)) for measure in bench.measures)])


def _times(seen: Spread | None) -> str:
    return "-" if seen is None else f"*x {seen.median:.2g}*" if seen.median < 10 else f"*x {seen.median:.0f}*"


def _caption(bench: Bench, results: Results) -> str:
    facts = results.facts
    more = [f"{key.replace('_', ' ')}: {_fact(key, value)}" for key, value in facts.items() if key not in _TOLD]
    return (
        f"{bench.what[0].upper()}{bench.what[1:]}. Median of {facts['runs']} runs (least to greatest), all ways in"
        f" turns on the same machine: {facts['cpus']} CPUs, {facts['cpu']}; Linux {facts['kernel']}; {facts['qemu']}."
        f" {results.when}. {'; '.join(more)}."
    )


# Series are drawn, a trace has a file of its own.
_TOLD = {"runs", "cpus", "cpu", "kernel", "qemu", "series", "trace"}


def _fact(key: str, value: object) -> str:
    if key == "link_rate":
        return f"{human_bytes(value)}/s" if isinstance(value, int) else "not limited"
    return str(value)


def comparison(bench: Bench, now: Results, then: Results) -> str:
    """Medians of now against those of an earlier file."""
    lines = _head(bench)
    for row, way in dict.fromkeys((sample.row, sample.way) for sample in now.samples):
        names = [measure.name for measure in bench.measures]
        pairs = [(measured(now.of(row, way), name), measured(then.of(row, way), name)) for name in names]
        lines.append(_line([row, way, *(_change(new, old) for new, old in pairs)]))
    return "\n".join([f"Against {then.when} ({then.facts['cpu']}, {then.facts['qemu']}):", "", *lines, ""])


def _change(new: Spread | None, old: Spread | None) -> str:
    return "-" if new is None or old is None or not old.median else f"x {new.median / old.median:.2f}"
