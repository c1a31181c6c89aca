"""The throttle of what we ask for ourselves, by a clock of its own."""

from __future__ import annotations

import asyncio
import time

import pytest

from qemu_esd.model.pace import AUTO, FLOOR
from qemu_esd.phases.pace import Throttle, first_limit


class Clock:
    """Time that only passes while somebody sleeps."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        patch.setattr(time, "monotonic", lambda: self.now)
        patch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_bytes_are_spread_over_time(clock: Clock) -> None:
    throttle = Throttle(1000)
    for expected in (100, 100.5, 101, 101.5):
        await throttle.admit(500)
        assert clock.now == expected
    assert throttle.passed == 2000


async def test_what_was_not_asked_for_is_not_caught_up_with(clock: Clock) -> None:
    throttle = Throttle(1000)
    await throttle.admit(500)
    clock.now += 60
    for expected in (160, 160.5):
        await throttle.admit(500)
        assert clock.now == expected


async def test_another_speed_holds_from_the_next_piece_on(clock: Clock) -> None:
    throttle = Throttle(1000)
    await throttle.admit(500)
    throttle.speed = 100
    await throttle.admit(500)
    assert clock.now == 100.5
    throttle.speed = 0
    await throttle.admit(500)
    assert clock.now == 105.5
    await throttle.admit(500)
    assert clock.now == 105.5


def test_what_a_move_begins_with() -> None:
    assert [first_limit(each) for each in (None, 5000, AUTO)] == [0, 5000, FLOOR]
