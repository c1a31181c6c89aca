"""Bytes, times and space, by policy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qemu_esd.hosts.wire import Wire
from qemu_esd.model.policy import Handler
from qemu_esd.phases.checks import FLOOR
from qemu_esd.phases.forecast import QEMU_DOWNTIME_MS, forecast
from tests.support.samples import MIB, plan

WIRE = Wire(rate=16 * MIB, round_trip=0.00123)


@pytest.mark.parametrize(
    ("handler", "later"),
    [
        (Handler.BACKGROUND, (8 * MIB, 8 * MIB)),
        (Handler.ON_DEMAND, (0, 8 * MIB)),
        (Handler.REDIRECT, (0, 0)),
        (Handler.MISS, (0, 0)),
    ],
)
def test_what_each_policy_moves(handler: Handler, later: tuple[int, int]) -> None:
    one = plan()
    told = forecast(replace(one, disks=(replace(one.disks[0], handler=handler),)), WIRE, ())
    (disk,) = told.disks
    assert (disk.moved, (disk.later_least, disk.later_most)) == (0, later)
    assert disk.worst == told.worst == 64 * MIB + FLOOR
    assert (told.memory, told.memory_seconds, told.later_seconds) == (256 * MIB, 16.0, later[0] / (16 * MIB))
    assert told.round_trip_ms == 1.23


def test_a_limit_below_what_the_link_can_do() -> None:
    assert forecast(replace(plan(), bandwidth=2 * MIB), WIRE, ()).later_seconds == 4.0
    assert forecast(replace(plan(), bandwidth=64 * MIB), WIRE, ()).later_seconds == 0.5
    assert forecast(replace(plan(), bandwidth="auto"), WIRE, ()).later_seconds == 0.5


def test_a_way_that_was_not_measured() -> None:
    told = forecast(plan(), None, ())
    assert (told.rate, told.memory_seconds, told.later_seconds) == (None, None, None)


def test_downtime_is_what_it_was_or_what_it_may_be() -> None:
    assert forecast(plan(), None, ()).downtime_ms == QEMU_DOWNTIME_MS
    assert forecast(replace(plan(), downtime_ms=50), None, ()).downtime_ms == 50
    told = forecast(replace(plan(), downtime_ms=50), None, (100.0, 900.0, 110.0))
    assert (told.downtime_ms, told.downtimes_known) == (110.0, 3)


def test_a_disk_without_local_space_takes_none() -> None:
    one = plan()
    assert forecast(replace(one, disks=(replace(one.disks[0], member=None),)), None, ()).worst == 0
