"""Results as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qemu_esd.units import human_bytes
from tests.bench.outcome import MEASURES, Results, Sample, Spread, measured, ratio

HEADINGS = {
    "running": "runs on the target after",
    "downtime": "downtime",
    "qemu": "QEMU's own downtime",
    "silent": "silent, seen from outside",
    "longest_io": "longest I/O",
    "link": "bytes over the link",
}


def _seconds(value: float) -> str:
    return f"{value / 1000:.2f} s"


def _millis(value: float) -> str:
    return f"{value:.0f} ms"


_WRITTEN: dict[str, Callable[[float], str]] = {"running": _seconds, "link": human_bytes}


def markdown(results: Results, base: str, other: str) -> str:
    """One line per row and way, and how many times `base` the `other` is. Medians (least to greatest)."""
    lines = _head()
    for row in results.rows():
        first, second = results.of(row, base), results.of(row, other)
        lines += [_row(row, base, first), _row("", other, second), _ratios(f"{other} / {base}", second, first)]
    return "\n".join([*lines, "", _caption(results), ""])


def _head() -> list[str]:
    return [_line(["disk", "", *(HEADINGS[name] for name in MEASURES)]), _line(["---"] * (2 + len(MEASURES)))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(name: str, way: str, samples: Sequence[Sample]) -> str:
    if not any(sample.figures for sample in samples):
        why = samples[-1].why if samples else "not run"
        return _line([name, way, why, *["-"] * (len(MEASURES) - 1)])
    return _line([name, way, *(_cell(measure, measured(samples, measure)) for measure in MEASURES)])


def _cell(measure: str, seen: Spread | None) -> str:
    if seen is None:
        return "-"
    write = _WRITTEN.get(measure, _millis)
    if seen.count == 1:
        return write(seen.median)
    return f"{write(seen.median)} ({write(seen.low)} to {write(seen.high)})"


def _ratios(name: str, over: Sequence[Sample], under: Sequence[Sample]) -> str:
    return _line(["", f"*{name}*", *(_times(ratio(over, under, measure)) for measure in MEASURES)])


def _times(seen: Spread | None) -> str:
    return "-" if seen is None else f"*x {seen.median:.2g}*" if seen.median < 10 else f"*x {seen.median:.0f}*"


def _caption(results: Results) -> str:
    facts = results.facts
    rate = f"{human_bytes(facts['link_rate'])}/s" if facts["link_rate"] else "not limited"
    return (
        f"Median of up to {facts['runs']} runs (least to greatest; without: one run), both ways in turns on the"
        " same two lab hosts,"
        f" NBD and RAM over TLS, link {rate}. Guest with {facts['guest_memory_mib']} MiB under a light verifying"
        f" load, accelerator {facts['accel']}. {facts['qemu']}; {facts['cpus']} CPUs, {facts['cpu']};"
        f" Linux {facts['kernel']}. {results.when}. At that moment pre-copy has moved the whole disk, and on-demand"
        " what has been read: the rest stays on the source until it is read or settled."
    )


def comparison(now: Results, then: Results) -> str:
    """Medians of now against those of an earlier file."""
    lines = _head()
    for row, way in dict.fromkeys((sample.row, sample.way) for sample in now.samples):
        pairs = [(measured(now.of(row, way), name), measured(then.of(row, way), name)) for name in MEASURES]
        lines.append(_line([row, way, *(_change(new, old) for new, old in pairs)]))
    return "\n".join([f"Against {then.when} ({then.facts['cpu']}, {then.facts['qemu']}):", "", *lines, ""])


def _change(new: Spread | None, old: Spread | None) -> str:
    return "-" if new is None or old is None or not old.median else f"x {new.median / old.median:.2f}"
