"""What a monitoring system is told: guests, devices, links, moves, and the migrations of this controller (Prometheus).

Made of what `status` sees, so nothing is asked for it alone.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from qemu_esd.view import GuestView

# Seconds; from what no guest notices to what its clients do.
DOWNTIME_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
_GUEST, _DISK = ("vm", "host"), ("vm", "host", "disk", "suid", "policy")


class Latest(Collector):
    """The metrics of the moment at which hosts were looked at last: a scrape never waits for a host."""

    def __init__(self) -> None:
        self.families: Sequence[Metric] = ()

    def collect(self) -> Iterator[Metric]:
        yield from self.families


def families(
    guests: Sequence[GuestView], downtimes_ms: Sequence[float], states: Iterable[str], now: float
) -> list[Metric]:
    """All of them: of guests as they were at `now`, and of this controller's migrations."""
    looked = GaugeMetricFamily("qemu_esd_last_look_timestamp_seconds", "When hosts were looked at.", value=now)
    return [
        looked,
        *_of_guests(guests),
        *_of_devices(guests),
        *_of_moves(guests),
        *_of_migrations(downtimes_ms, states),
    ]


def _of_guests(guests: Sequence[GuestView]) -> Iterator[Metric]:
    info = InfoMetricFamily(
        "qemu_esd_guest", "A guest: how far its last migration is, and its run state.", labels=_GUEST
    )
    problem = GaugeMetricFamily("qemu_esd_guest_problem", "1 where something is wrong with a guest.", labels=_GUEST)
    up = GaugeMetricFamily(
        "qemu_esd_link_up", "1 where the link to the source stands; only guests that have one.", labels=_GUEST
    )
    down = GaugeMetricFamily(
        "qemu_esd_link_down_seconds", "For how long nobody has answered at its other end.", labels=_GUEST
    )
    received = CounterMetricFamily(
        "qemu_esd_link_received_bytes", "Bytes that came over it for the guest's disks.", labels=_GUEST
    )
    waiting = GaugeMetricFamily(
        "qemu_esd_waiting_requests", "Requests of disks that wait for a dead link.", labels=_GUEST
    )
    for guest in guests:
        labels = (guest.vm, guest.host)
        info.add_metric(labels, {"state": guest.state, "run_state": guest.run_state or "unknown"})
        problem.add_metric(labels, float(guest.problem is not None or bool(guest.io_errors)))
        if guest.link != "none":
            up.add_metric(labels, float(guest.link == "up"))
            down.add_metric(labels, float(guest.link_down_s or 0))
        if guest.link_received_bytes is not None:
            received.add_metric(labels, guest.link_received_bytes)
        if guest.waiting_requests is not None:
            waiting.add_metric(labels, guest.waiting_requests)
    yield from (info, problem, up, down, received, waiting)


def _of_devices(guests: Sequence[GuestView]) -> Iterator[Metric]:
    size = GaugeMetricFamily("qemu_esd_device_size_bytes", "Virtual size of a device.", labels=_DISK)
    local = GaugeMetricFamily("qemu_esd_device_local_bytes", "Data of a device where the guest runs.", labels=_DISK)
    remote = GaugeMetricFamily(
        "qemu_esd_device_remote_bytes", "Data of a device that only the source has.", labels=_DISK
    )
    for guest in guests:
        for disk in guest.disks:
            labels = (guest.vm, guest.host, disk.disk, disk.suid, disk.handler)
            size.add_metric(labels, disk.virtual_bytes)
            # What is not known is not told: a gap, and no zero.
            if disk.local_bytes is not None:
                local.add_metric(labels, disk.local_bytes)
            if disk.remote_bytes is not None:
                remote.add_metric(labels, disk.remote_bytes)
    yield from (size, local, remote)


def _of_moves(guests: Sequence[GuestView]) -> Iterator[Metric]:
    labels = ("vm", "host", "disk")
    done = GaugeMetricFamily("qemu_esd_job_done_bytes", "How far a background move is.", labels=labels)
    total = GaugeMetricFamily("qemu_esd_job_total_bytes", "How far it has to go.", labels=labels)
    rate = GaugeMetricFamily("qemu_esd_job_rate_bytes_per_second", "How fast it is.", labels=labels)
    for guest in guests:
        if guest.job is not None:
            where = (guest.vm, guest.host, guest.job.disk)
            for family, value in ((done, guest.job.done), (total, guest.job.total), (rate, guest.job.rate)):
                family.add_metric(where, value)
    yield from (done, total, rate)


def _of_migrations(downtimes_ms: Sequence[float], states: Iterable[str]) -> Iterator[Metric]:
    migrations = GaugeMetricFamily(
        "qemu_esd_migrations", "Migrations that were begun by this controller, by how far they came.", labels=("state",)
    )
    for state, count in sorted(Counter(states).items()):
        migrations.add_metric((state,), count)
    seconds = sorted(ms / 1000 for ms in downtimes_ms)
    buckets = [(f"{limit:g}", bisect.bisect_right(seconds, limit)) for limit in DOWNTIME_BUCKETS]
    downtime = HistogramMetricFamily("qemu_esd_downtime_seconds", "How long guests stood still at their switchover.")
    downtime.add_metric((), [*buckets, ("+Inf", len(seconds))], sum(seconds))
    yield from (migrations, downtime)
