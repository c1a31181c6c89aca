"""The trace of a command: what Perfetto and Chromium are given."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd import log
from qemu_esd.trace import STEP, Span, events, lanes, trace, write

times = st.integers(min_value=0, max_value=50)


@pytest.fixture(autouse=True)
def _none_again() -> Iterator[None]:
    yield
    trace.stop()
    trace.spans.clear()


@given(st.lists(st.tuples(times, times)))
def test_no_two_spans_of_a_lane_overlap(pairs: list[tuple[int, int]]) -> None:
    spans = [Span("ssh", began, took, {}) for began, took in sorted(pairs)]
    told = list(lanes(spans))
    assert [span for _, span in told] == spans
    for (lane, one), (other_lane, other) in combinations(told, 2):
        assert lane != other_lane or one.began + one.took <= other.began


async def test_steps_programs_and_commands_are_told_with_their_hosts(tmp_path: Path) -> None:
    @log.step
    async def _move_memory() -> int:
        with (
            log.timed("QMP", host="hostA", peer="vm1", command="migrate"),
            log.timed("ssh", host="hostB", program="ls"),
        ):
            return 7

    await _move_memory()
    assert trace.spans == []
    trace.start()
    assert await _move_memory() == 7
    write(tmp_path / "t.json", trace.spans)

    told = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    hosts = {event["pid"]: event["args"]["name"] for event in told if event["ph"] == "M"}
    spans = {(hosts[event["pid"]], event["cat"], event["name"]) for event in told if event["ph"] == "X"}
    assert spans == {("qemu-esd", STEP, "move memory"), ("hostA", "QMP", "migrate"), ("hostB", "ssh", "ls")}


def test_it_begins_with_the_process() -> None:
    trace.start()
    before = time.monotonic()
    with log.timed("QMP", command="stop"):
        pass
    # This process has loaded pytest at least.
    assert trace.spans[0].began > 0.05
    assert trace.spans[0].took <= time.monotonic() - before


def test_what_fails_is_in_it_too() -> None:
    trace.start()
    with pytest.raises(ZeroDivisionError), log.timed("QMP", command="stop"):
        _ = 1 / 0
    assert [span.name for span in trace.spans] == ["stop"]


def test_events_of_nothing() -> None:
    assert list(events([])) == []
