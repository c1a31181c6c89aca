"""Results as pictures (SVG)."""

from __future__ import annotations

from typing import Any

import pygal  # type: ignore[import-untyped]
from pygal.style import Style  # type: ignore[import-untyped]

from tests.bench.bench import Bench, Measure
from tests.bench.outcome import Results, measured

# A logarithmic axis has no zero: this is where its bars begin, for every way alike.
AXIS_BEGINS = 0.1

_STYLE = Style(
    background="white",
    plot_background="white",
    foreground="#333333",
    foreground_strong="#000000",
    foreground_subtle="#bbbbbb",
    colors=("#1b6ca8", "#d98032", "#5a9e6f", "#8a6bb0"),
    opacity="1",
    font_family="sans-serif",
    label_font_size=12,
    value_font_size=13,
    value_colors=("#ffffff", "#000000", "#000000", "#ffffff"),
)


def draw(bench: Bench, measure: Measure, results: Results) -> bytes:
    """Medians as bars, one group per row. A way that did not arrive has a pale bar as high as its bound."""
    rows = {row: [_bar(results, row, way, measure) for way in bench.ways] for row in results.rows()}
    chart = pygal.Bar(
        title=measure.drawn,
        print_values=True,
        legend_at_bottom=True,
        truncate_label=-1,
        width=960,
        height=420,
        style=_STYLE,
        # A picture: no script of somebody's.
        js=[],
        formatter=_written,
        **(_logarithmic(rows) if measure.logarithmic else {}),
    )
    # Else a random one: the same results must give the same picture.
    chart.uuid = f"{results.bench}-{measure.name}"
    chart.x_labels = list(rows)
    for number, way in enumerate(bench.ways):
        chart.add(way, [bars[number] for bars in rows.values()])
    return bytes(chart.render())


def curve(results: Results, title: str) -> bytes:
    """`series` of the facts over time: each a list of points whose first two numbers are seconds and a value."""
    chart = pygal.XY(
        title=title,
        legend_at_bottom=True,
        truncate_legend=-1,
        width=960,
        height=420,
        style=_STYLE,
        js=[],
        x_title="Seconds since the command",
        show_dots=False,
    )
    chart.uuid = f"{results.bench}-curve"
    for name, points in results.facts["series"].items():
        chart.add(name, [(point[0], point[1]) for point in points])
    return bytes(chart.render())


def _written(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _logarithmic(rows: dict[str, list[Any]]) -> dict[str, Any]:
    values = [bar["value"] if isinstance(bar, dict) else bar for bars in rows.values() for bar in bars]
    highest = max((value for value in values if value is not None), default=1.0) * 1.5
    labels = [label for label in (0.1, 0.3, 1, 3, 10, 30, 100, 300) if label <= highest]
    return {"logarithmic": True, "range": (AXIS_BEGINS, highest), "zero": AXIS_BEGINS, "y_labels": labels}


def _bar(results: Results, row: str, way: str, measure: Measure) -> Any:
    samples = results.of(row, way)
    seen = measured(samples, measure.name)
    if seen is not None:
        return measure.scaled(seen.median)
    if measure.name != "running" or not any(sample.unfinished for sample in samples):
        return None
    bound = results.facts["bound_s"]
    return {"value": bound, "formatter": lambda value: f"> {value:.0f}", "style": "fill-opacity: 0.3"}
