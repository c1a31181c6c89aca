"""Hosts of their own for tests that lose one of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.build import GuestImage
from qemu_esd.hosts import lab
from tests.faults import report
from tests.integration.support.fleet import Fleet
from tests.integration.support.machine import Machine
from tests.support.labs import lab_name


def pytest_collection_finish(session: pytest.Session) -> None:
    report.collected(item.nodeid for item in session.items)


@pytest.fixture
def own_fleet(lab_image: GuestImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root (namespaces and mounts)")
    monkeypatch.setenv("QEMU_ESD_LAB", f"/run/{lab_name()}-own")
    monkeypatch.setenv("QEMU_ESD_LAB_DATA", f"/var/lib/qemu-esd-{lab_name()}-own")
    monkeypatch.setenv("QEMU_ESD_STATE", str(tmp_path / "controller"))
    try:
        fleet = Fleet([Machine(host) for host in asyncio.run(lab.up(3)).lab.hosts], lab_image)
        yield fleet
        print(fleet.logs())
    finally:
        asyncio.run(lab.down())
