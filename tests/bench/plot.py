"""Results as pictures (SVG)."""

from __future__ import annotations

from typing import Any

import pygal  # type: ignore[import-untyped]
from pygal.style import LightStyle  # type: ignore[import-untyped]

from tests.bench.outcome import Results, measured

# What is drawn: the measure, its heading, and what a value in ms is divided by.
PICTURES = {
    "running": ("Seconds until the guest runs on the target (logarithmic)", 1000),
    "downtime": ("Milliseconds of downtime", 1),
}


def draw(results: Results, measure: str, ways: tuple[str, ...]) -> bytes:
    """Medians as bars, one group per row. A way that did not arrive has a hollow bar as high as its bound."""
    title, unit = PICTURES[measure]
    chart = pygal.Bar(
        title=title,
        logarithmic=measure == "running",
        print_values=True,
        legend_at_bottom=True,
        width=900,
        height=420,
        style=LightStyle,
        # A picture: no script, and the same bytes from the same results.
        js=[],
        no_prefix=True,
        formatter=lambda value: f"{value:.1f}" if value < 10 else f"{value:.0f}",
    )
    chart.x_labels = results.rows()
    for way in ways:
        chart.add(way, [_bar(results, row, way, measure, unit) for row in results.rows()])
    return bytes(chart.render())


def _bar(results: Results, row: str, way: str, measure: str, unit: float) -> Any:
    samples = results.of(row, way)
    seen = measured(samples, measure)
    if seen is not None:
        return seen.median / unit
    if measure != "running" or not any(sample.unfinished for sample in samples):
        return None
    bound = results.facts["bound_s"]
    return {"value": bound, "formatter": lambda value: f"> {value:.0f}", "style": "fill-opacity: 0.15"}
