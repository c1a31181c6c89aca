"""What a migration will move, how long that takes at the measured rate, and what the target may have to give. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from qemu_esd.hosts.wire import Wire
from qemu_esd.model.plan import DiskPlan, Plan
from qemu_esd.model.policy import Handler
from qemu_esd.phases import checks

# QEMU's own limit (downtime-limit), in ms, where neither we nor the user set one.
QEMU_DOWNTIME_MS = 300


@dataclass(frozen=True)
class DiskForecast:
    """Bytes of one disk. `moved`: at once: none. `later_least` and `later_most`: what its policy moves afterwards.

    `worst` is what its member on the target grows to if the guest writes all of the disk anew.
    """

    disk: str
    handler: Handler
    moved: int
    later_least: int
    later_most: int
    worst: int


@dataclass(frozen=True)
class Forecast:
    """`memory` bytes move at once, at most; `rate` (bytes/s) is what was measured, None: nothing was.

    Times in seconds are None where no rate is known; `later_seconds` is for what moves by itself. `downtime_ms` is the
    median of `downtimes_known` migrations from here, or else a limit.
    """

    memory: int
    rate: int | None
    round_trip_ms: float | None
    memory_seconds: float | None
    later_seconds: float | None
    downtime_ms: float
    downtimes_known: int
    worst: int
    disks: tuple[DiskForecast, ...]


def forecast(plan: Plan, wire: Wire | None, downtimes: Sequence[float]) -> Forecast:
    """`wire`: the way from source to target; `downtimes`: ms of earlier migrations."""
    disks = tuple(_disk(disk) for disk in plan.disks)
    rate = wire.rate if wire else None
    later_rate = min(rate, plan.bandwidth) if rate and isinstance(plan.bandwidth, int) else rate
    return Forecast(
        memory=plan.guest.memory,
        rate=rate,
        round_trip_ms=round(wire.round_trip * 1000, 3) if wire else None,
        memory_seconds=_seconds(plan.guest.memory, rate),
        later_seconds=_seconds(sum(disk.later_least for disk in disks), later_rate),
        downtime_ms=round(statistics.median(downtimes), 1) if downtimes else plan.downtime_ms or QEMU_DOWNTIME_MS,
        downtimes_known=len(downtimes),
        worst=sum(disk.worst for disk in disks),
        disks=disks,
    )


def _seconds(count: int, rate: int | None) -> float | None:
    return round(count / rate, 1) if rate else None


def _disk(plan: DiskPlan) -> DiskForecast:
    data = plan.disk.data
    least, most = {
        Handler.BACKGROUND: (data, data),
        Handler.ON_DEMAND: (0, data),
        # What is not kept comes over as often as it is read: there is no most, and nothing to plan by.
        Handler.REDIRECT: (0, 0),
        Handler.MISS: (0, 0),
    }[plan.handler]
    worst = plan.disk.size + checks.FLOOR if plan.member else 0
    return DiskForecast(plan.disk.id, plan.handler, 0, least, most, worst)
