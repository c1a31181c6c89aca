"""What all tests share: the guest's image, and a lab of three hosts for the tests that need real ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.build import GuestImage, build
from qemu_esd.hosts import lab
from tests.integration.support.fleet import Fleet
from tests.integration.support.machine import Machine


@pytest.fixture(scope="session")
def guest_image() -> GuestImage:
    """Built once, and only if it is not up to date."""
    return build()


@pytest.fixture(scope="session")
def lab_hosts() -> Iterator[tuple[lab.LabHost, ...]]:
    """Three hosts of a lab that is ours alone; taken down whatever happens."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root (namespaces and mounts)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QEMU_ESD_LAB", f"/run/esd-test-{os.getpid()}")
        patch.setenv("QEMU_ESD_LAB_DATA", f"/var/lib/esd-test-{os.getpid()}")
        try:
            yield asyncio.run(lab.up(3)).lab.hosts
        finally:
            asyncio.run(lab.down())


@pytest.fixture
def fleet(
    lab_hosts: tuple[lab.LabHost, ...], guest_image: GuestImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleet]:
    """The hosts, empty, and a controller that knows nothing. Whatever the test leaves on them is removed."""
    monkeypatch.setenv("QEMU_ESD_STATE", str(tmp_path / "controller"))
    fleet = Fleet([Machine(host) for host in lab_hosts], guest_image)
    fleet.sweep()
    yield fleet
    fleet.sweep()
