"""Metrics as Prometheus reads them: read back by its own parser."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from qemu_esd.cli.metrics import parse_address
from qemu_esd.errors import UsageError
from qemu_esd.journal import store
from qemu_esd.metrics import Latest, families
from qemu_esd.model.record import Measured
from qemu_esd.view import DiskView, GuestView, JobView
from tests.support.samples import plan

VDA = DiskView("vda", "s1", "background", "local", 1000, 600, 300, needs_source=True)
UNKNOWN = DiskView("vdb", "s2", "miss", "local", 500, None, None, needs_source=False)
MOVED = GuestView(
    *("0badcafe", "vm1", "a", "b", True, "settling", 100.0, 200.0, None, (VDA, UNKNOWN), "b", "up"),
    job=JobView("vda", 600, 900, 50),
    run_state="running",
    link_received_bytes=12345,
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(*guests: GuestView, downtimes: tuple[float, ...] = (), states: tuple[str, ...] = ()) -> Samples:
    latest, registry = Latest(), CollectorRegistry()
    registry.register(latest)
    latest.families = families(guests, downtimes, states, 1000.0)
    return parsed(generate_latest(registry).decode())


def parsed(text: str) -> Samples:
    found = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}


def of(samples: Samples, name: str, **labels: str) -> list[float]:
    return [value for (known, those), value in samples.items() if known == name and set(labels.items()) <= those]


def test_a_guest_that_is_moving() -> None:
    told = read(MOVED)
    assert of(told, "qemu_esd_device_local_bytes", vm="vm1", host="b", disk="vda", policy="background") == [600]
    assert of(told, "qemu_esd_device_remote_bytes") == [300]
    assert sorted(of(told, "qemu_esd_device_size_bytes")) == [500, 1000]
    assert of(told, "qemu_esd_link_up", vm="vm1") == [1]
    assert of(told, "qemu_esd_link_received_bytes_total") == [12345]
    assert of(told, "qemu_esd_job_done_bytes", disk="vda") == [600]
    assert of(told, "qemu_esd_job_total_bytes") == [900]
    assert of(told, "qemu_esd_job_rate_bytes_per_second") == [50]
    assert of(told, "qemu_esd_guest_info", state="settling", run_state="running") == [1]
    assert of(told, "qemu_esd_guest_problem") == [0]
    assert of(told, "qemu_esd_last_look_timestamp_seconds") == [1000]


def test_what_is_not_there_or_not_known_is_not_told() -> None:
    told = read(replace(MOVED, link="none", link_received_bytes=None, job=None, disks=(UNKNOWN,)))
    for name in ("link_up", "link_received_bytes_total", "job_done_bytes", "device_local_bytes", "device_remote_bytes"):
        assert of(told, f"qemu_esd_{name}") == []


def test_trouble() -> None:
    told = read(replace(MOVED, link="down", link_down_s=40, waiting_requests=3, io_errors={"vda": "nospace"}))
    assert of(told, "qemu_esd_link_up") == [0]
    assert of(told, "qemu_esd_link_down_seconds") == [40]
    assert of(told, "qemu_esd_waiting_requests") == [3]
    assert of(told, "qemu_esd_guest_problem") == [1]
    assert of(read(replace(MOVED, problem="lost")), "qemu_esd_guest_problem") == [1]


def test_migrations() -> None:
    told = read(downtimes=(40.0, 100.0, 150.0, 20000.0), states=("settled", "rolled-back", "settled"))
    assert of(told, "qemu_esd_migrations", state="settled") == [2]
    limits = {dict(labels)["le"]: value for (name, labels), value in told.items() if name.endswith("seconds_bucket")}
    assert (limits["0.05"], limits["0.1"], limits["0.2"], limits["10"], limits["+Inf"]) == (1, 2, 3, 3, 4)
    assert of(told, "qemu_esd_downtime_seconds_count") == [4]
    assert of(told, "qemu_esd_downtime_seconds_sum") == [pytest.approx(20.29)]


@pytest.mark.parametrize(
    ("text", "address"), [("127.0.0.1:9790", ("127.0.0.1", 9790)), ("[::1]:1", ("::1", 1)), ("h:65535", ("h", 65535))]
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "9790", ":9790", "h:", "h:0", "h:65536", "::1:5", "h:9790/metrics"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        parse_address(text)


async def start(*words: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "qemu_esd", "metrics", *words, stdout=pipe, stderr=pipe
    )


async def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of giving them, of a controller that has moved a guest once."""
    monkeypatch.setenv("QEMU_ESD_STATE", str(tmp_path / "state"))
    with store.begin(plan()) as journal:
        journal.append(Measured("downtime", 120.0))
    file = tmp_path / "esd.prom"
    assert await (await start("--textfile", str(file))).wait() == 0
    assert of(parsed(file.read_text()), "qemu_esd_downtime_seconds_count") == [1]

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
    serving = await start("--listen", f"127.0.0.1:{port}")
    assert serving.stderr is not None
    assert f"127.0.0.1:{port}/metrics".encode() in await serving.stderr.readline()
    taken = await start("--listen", f"127.0.0.1:{port}")
    _, said = await taken.communicate()
    assert (taken.returncode, b"cannot listen" in said) == (3, True)
    text = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
    assert of(parsed(text), "qemu_esd_migrations", state="planned") == [1]
    os.kill(serving.pid, signal.SIGINT)
    assert await serving.wait() == 0
