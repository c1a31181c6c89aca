"""What all tests share: the guest's image, and a lab of three hosts for the tests that need real ones."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import hypothesis
import pytest
from xdist.workermanage import NodeManager

# What these assert is told in full, as in a test.
pytest.register_assert_rewrite("tests.integration.support", "tests.lab.tools", "tests.support")

from images.build import GuestImage, build
from images.newer_qemu import FetchError
from qemu_esd.hosts import accel, lab
from qemu_esd.hosts.connect import open_host
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import PATHS
from tests.integration.support.machine import STATE, Machine, ended, kill
from tests.support import modular, newer
from tests.support.domains import remove_all
from tests.support.labs import lab_name

# A busy machine is no failure.
hypothesis.settings.register_profile(
    "esd", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("esd")


def pytest_addoption(parser: pytest.Parser) -> None:
    told = (
        "the machine's QEMU (old), a newer one for everything, or across: old on hostA, newer on hostB and hostC; "
        "or trixie: QEMU and libvirt of Debian 13 for everything"
    )
    parser.addoption("--qemu", choices=("old", "new", "across", newer.TRIXIE), default="old", help=told)
    told = "the daemon of libvirt on lab hosts; virtqemud is built from Debian's source of the machine's libvirt first"
    parser.addoption("--libvirt", choices=("libvirtd", "virtqemud"), default="libvirtd", help=told)


def pytest_configure(config: pytest.Config) -> None:
    """Interrupted, those that run tests side by side get the time to take their labs down (10 s is the default)."""
    if config.pluginmanager.hasplugin("xdist"):
        NodeManager.EXIT_TIMEOUT = 60


@pytest.fixture(scope="session")
def newer_qemu() -> Iterator[Path]:
    """A newer QEMU where lab hosts see it. Without it nothing is proven about versions, so in CI that is a failure."""
    try:
        with newer.unpacked() as usr:
            yield usr
    except FetchError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no newer QEMU: {error} ({error.hint})")


@pytest.fixture(scope="session", autouse=True)
def _qemu_of_this_run(request: pytest.FixtureRequest) -> Iterator[None]:
    which = request.config.getoption("qemu")
    if which not in ("new", newer.TRIXIE):
        yield
        return
    with newer.unpacked(newer.TRIXIE if which == newer.TRIXIE else None) as usr, newer.everywhere(usr):
        yield


@pytest.fixture(scope="session", autouse=True)
def _libvirt_of_this_run(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.config.getoption("libvirt") == "libvirtd":
        yield
        return
    with modular.unpacked() as usr, newer.everywhere(usr):
        yield


@pytest.fixture(scope="session")
def guest_image() -> GuestImage:
    """Built once, and only if it is not up to date."""
    return build()


@pytest.fixture(scope="session")
def lab_hosts(request: pytest.FixtureRequest) -> Iterator[tuple[lab.LabHost, ...]]:
    """Three hosts of a lab that is ours alone; taken down whatever happens."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root (namespaces and mounts)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QEMU_ESD_LAB", f"/run/{lab_name()}")
        patch.setenv("QEMU_ESD_LAB_DATA", f"/var/lib/qemu-esd-{lab_name()}")
        try:
            hosts = asyncio.run(lab.up(3)).lab.hosts
            asyncio.run(know_accelerator(*map(Machine, hosts)))
            with ExitStack() as stack:
                if request.config.getoption("qemu") == "across":
                    usr = stack.enter_context(newer.unpacked())
                    stack.enter_context(newer.on(usr, *map(Machine, hosts[1:])))
                yield hosts
        finally:
            asyncio.run(lab.down())


async def know_accelerator(first: Machine, *others: Machine) -> None:
    """As after a guest on each of them; they are one machine, and it takes seconds to find out."""
    async with open_host(first.name) as host:
        await accel.choose(host, PATHS)
    for machine in others:
        shutil.copy(first.real(f"{STATE}/accel"), machine.real(f"{STATE}/accel"))


@pytest.fixture(scope="session")
def _libvirt_lab() -> Iterator[tuple[dict[str, str], tuple[lab.LabHost, ...]]]:
    """Two hosts with libvirt of a lab that is ours alone, and the environment in which they are found."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root (namespaces and mounts)")
    name = f"{lab_name()}-libvirt"
    where = {"QEMU_ESD_LAB": f"/run/{name}", "QEMU_ESD_LAB_DATA": f"/var/lib/qemu-esd-{name}"}
    with pytest.MonkeyPatch.context() as patch:
        in_it(where, patch)
        hosts = asyncio.run(lab.up(2, libvirt=True)).lab.hosts
    yield where, hosts
    with pytest.MonkeyPatch.context() as patch:
        in_it(where, patch)
        asyncio.run(lab.down())


def in_it(where: dict[str, str], patch: pytest.MonkeyPatch) -> None:
    for name, value in where.items():
        patch.setenv(name, value)


@pytest.fixture
def libvirt_hosts(
    _libvirt_lab: tuple[dict[str, str], tuple[lab.LabHost, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[lab.LabHost, ...]]:
    """Two hosts with libvirt and no domain, and a controller that knows nothing."""
    where, hosts = _libvirt_lab
    in_it(where | {"QEMU_ESD_STATE": str(tmp_path / "controller")}, monkeypatch)
    yield hosts
    for host in hosts:
        asyncio.run(remove_all(host))


@pytest.fixture(scope="session")
def lab_image(guest_image: GuestImage) -> Iterator[GuestImage]:
    """The image where lab hosts see it: each has a /tmp and a /run of its own, and this clone may be in one of them."""
    with tempfile.TemporaryDirectory(prefix="esd-test-", dir="/var/cache") as folder:
        copies = [Path(shutil.copy(path, folder)) for path in (guest_image.kernel, guest_image.initrd)]
        yield GuestImage(*copies)


@pytest.fixture
def fleet(
    lab_hosts: tuple[lab.LabHost, ...], lab_image: GuestImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleet]:
    """The hosts, empty, and a controller that knows nothing. Whatever the test leaves on them is removed.

    What the hosts' units have said is printed: pytest shows it if the test has failed.
    """
    monkeypatch.setenv("QEMU_ESD_STATE", str(tmp_path / "controller"))
    fleet = Fleet([Machine(host) for host in lab_hosts], lab_image)
    fleet.sweep()
    yield fleet
    end_movers()
    print(fleet.logs())
    fleet.sweep()


def end_movers() -> None:
    """Processes of the test's controller that go on with a background move, known by where their controller is."""
    mine = f"QEMU_ESD_STATE={os.environ['QEMU_ESD_STATE']}".encode()
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            is_mover = b"--background-only" in (folder / "cmdline").read_bytes().split(b"\0")
            if is_mover and mine in (folder / "environ").read_bytes().split(b"\0"):
                kill(int(folder.name))
                asyncio.run(ended(int(folder.name)))
