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
def test_a_guest_that_suffers_halves_it(speed: int, rate: int) -> None:
    now = Pace(speed, calm=QUICK, windows=5)
    then = after(now, SLOW, rate)
    assert then.speed == max(min(speed, rate) // 2, FLOOR)
    assert not then.doubling
    assert after(replace(then, windows=5), QUICK, 1 << 40).speed == then.speed + max(pace.STEP, then.speed // 8)


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
