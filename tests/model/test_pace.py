"""The pace of a background move: what is decided from what the guest notices, whatever that is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.model import pace
from qemu_esd.model.pace import CALM_EVERY, FLOOR, START, Latencies, Pace, after, p99
from qemu_esd.units import MIB

QUICK: Latencies = {1e6: 990, 2e6: 10}
SLOW: Latencies = {1e6: 900, 9e6: 100}
latencies = st.dictionaries(st.sampled_from([1e5, 1e6, 2e6, 4e6, 9e6]), st.integers(1, 10_000))
rates = st.integers(0, 1 << 40)
windows = st.lists(st.tuples(latencies, rates), max_size=60)


def run(start: Pace, *seen: tuple[Latencies, int]) -> Pace:
    for window in seen:
        start = after(start, *window)
    return start


@given(windows)
def test_it_never_starves_nor_runs_away(seen: list[tuple[Latencies, int]]) -> None:
    now = Pace()
    for window, rate in seen:
        then = after(now, window, rate)
        assert then.speed >= FLOOR
        assert then.limit in (FLOOR, then.speed)
        assert then.speed <= max(now.speed, 2 * rate)
        now = then


@given(windows)
def test_calm_windows_come_again_and_again(seen: list[tuple[Latencies, int]]) -> None:
    now, since = Pace(), 0
    for window, rate in seen:
        since = 0 if now.windows == 0 else since + 1
        assert since < CALM_EVERY
        now = after(now, window, rate)


@given(st.lists(st.tuples(st.just(QUICK), st.just(1 << 40)), min_size=20, max_size=40))
def test_a_guest_that_notices_nothing_makes_it_faster_and_faster(seen: list[tuple[Latencies, int]]) -> None:
    assert run(Pace(), *seen).speed > 1000 * START


@given(st.integers(FLOOR, 1 << 40), rates)
def test_a_guest_that_suffers_slows_it_down(speed: int, rate: int) -> None:
    now = Pace(speed, calm=QUICK, windows=5)
    first = after(now, SLOW, rate)
    assert first.speed == max(min(speed, 2 * rate) // 2, FLOOR)
    assert not first.doubling
    then = after(first, SLOW, first.speed)
    assert then.speed == max(first.speed * 3 // 4, FLOOR)
    assert after(then, QUICK, 1 << 40).speed == then.speed + max(pace.STEP, then.speed // 8)


@given(st.integers(FLOOR, 1 << 40))
def test_in_a_few_windows_it_is_at_the_floor(speed: int) -> None:
    now = Pace(speed, calm=QUICK, windows=1000)
    for _ in range(50):
        now = after(now, SLOW, now.limit)
    assert now.speed == FLOOR


@given(rates)
def test_an_idle_guest_is_no_reason_to_wait(rate: int) -> None:
    first = after(Pace(), {}, rate)
    assert first.limit == START
    assert after(first, {}, 100 * MIB).limit > START


def test_a_guest_that_wakes_up_is_looked_at_in_the_calm_first() -> None:
    idle = run(Pace(), ({}, 0), ({}, 100 * MIB))
    awake = after(idle, SLOW, 100 * MIB)
    assert awake.limit == FLOOR
    assert after(awake, SLOW, 0).calm == SLOW
    assert after(after(awake, SLOW, 0), SLOW, 100 * MIB).speed > idle.speed


def test_what_is_slow_by_nature_is_no_reason_to_be_slow() -> None:
    calm = after(Pace(), SLOW, 0)
    assert after(calm, SLOW, 100 * MIB).speed == 2 * START


def test_the_calm_of_long_ago_fades() -> None:
    now = after(Pace(), SLOW, 0)
    for _ in range(8):
        now = after(replace(now, windows=0), QUICK, 0)
    assert p99(now.calm) < 9e6


@given(latencies)
def test_99_of_100_are_not_slower(seen: dict[float, int]) -> None:
    limit, total = p99(seen), sum(seen.values())
    assert sum(count for upper, count in seen.items() if upper <= limit) >= 0.99 * total
    assert sum(count for upper, count in seen.items() if upper < limit) < max(0.99 * total, 1)


@pytest.mark.parametrize("seen", [{}, Counter[float]()])
def test_of_nothing_there_is_no_99th(seen: Latencies) -> None:
    assert p99(seen) == 0


@pytest.mark.parametrize(
    ("bandwidth", "near", "far"),
    [(None, 2 * MIB, 7 * MIB), (10 * MIB, MIB // 4, MIB // 2), ("auto", MIB // 4, MIB)],
)
def test_no_more_is_in_flight_than_the_way_needs(bandwidth: pace.Bandwidth, near: int, far: int) -> None:
    """Between hosts side by side, and where it is 10 ms each way."""
    assert near <= pace.in_flight(bandwidth, 0.0001) <= near * 1.1
    assert far * 0.8 <= pace.in_flight(bandwidth, 0.02) <= far * 1.1
    assert pace.in_flight(bandwidth, 60) == pace.MOST
