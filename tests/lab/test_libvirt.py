"""A lab with libvirt: what each host has of it, what it is told of a local disk, and what is left of it."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qemu_esd.cli.lab import app
from qemu_esd.errors import RefusedError
from qemu_esd.hosts import lab
from qemu_esd.hosts.lab.needs import libvirt_daemon
from qemu_esd.hosts.lab.process import SBIN, kill
from tests.lab.tools import on, traces
from tests.support import newer
from tests.support.domains import DAEMON, connected, running

pytestmark = pytest.mark.lab

_CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[lab.LabHost, ...]]:
    """A lab with libvirt for the tests that leave it as they found it."""
    root = tmp_path_factory.mktemp("libvirt") / "lab"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QEMU_ESD_LAB", str(root))
        patch.delenv("QEMU_ESD_LAB_DATA", raising=False)
        yield asyncio.run(lab.up(2, libvirt=True)).lab.hosts
        asyncio.run(lab.down())
        assert traces(root) == set()


async def test_each_host_has_a_libvirt_of_its_own(
    two_hosts: tuple[lab.LabHost, ...], request: pytest.FixtureRequest
) -> None:
    uuids = set()
    for host in two_hosts:
        async with connected(host) as connection:
            assert await asyncio.to_thread(connection.getHostname) == host.name
            # Debian 13's is unpacked without its driver for networks, which for virtqemud would be another daemon.
            if request.config.getoption("qemu") != newer.TRIXIE and libvirt_daemon() == "libvirtd":
                assert await asyncio.to_thread(connection.listAllNetworks) == []
            uuids.add((await asyncio.to_thread(connection.getCapabilities)).partition("<uuid>")[2][:36])
    assert len(uuids) == 2


async def test_hosts_reach_each_others_libvirt_by_ssh(two_hosts: tuple[lab.LabHost, ...]) -> None:
    for here, there in (two_hosts, two_hosts[::-1]):
        assert await on(here, "virsh", "-c", f"qemu+ssh://{there.name}/system", "hostname") == f"{there.name}\n\n"


async def test_libvirt_refuses_to_move_a_guest_with_a_local_disk(two_hosts: tuple[lab.LabHost, ...]) -> None:
    here = two_hosts[0]
    async with running(here) as domain:
        words = ("virsh", "migrate", "--live", "web1", "qemu+ssh://hostB/system")
        async with lab.connect(here) as opened:
            done = await opened.attempt(words)
        assert done.status == 1
        assert "Unsafe migration: Migration without shared storage is unsafe" in done.stderr
        assert await asyncio.to_thread(domain.isActive)
        await asyncio.to_thread(domain.destroy)
        await asyncio.to_thread(domain.undefine)


async def test_libvirtd_comes_back_and_finds_its_guests(two_hosts: tuple[lab.LabHost, ...]) -> None:
    here = two_hosts[0]
    async with running(here):
        pid = await on(here, "cat", "/run/libvirt/qemu/web1.pid")
        await on(here, "pkill", "--signal", "KILL", "--exact", DAEMON)
    while lab.status().hosts[0].libvirt is not True:
        await asyncio.sleep(0.05)
    assert (await on(here, "virsh", "domstate", "web1")).split() == ["running"]
    assert await on(here, "cat", "/run/libvirt/qemu/web1.pid") == pid
    await on(here, "virsh", "destroy", "web1")
    await on(here, "virsh", "undefine", "web1")


async def test_down_ends_running_guests_too(lab_root: Path) -> None:
    host = (await lab.up(1, libvirt=True)).lab.hosts[0]
    assert host.init is not None
    namespace = Path(f"/proc/{host.init.pid}/ns/pid").readlink()
    async with running(host):
        assert {libvirt_daemon(), "qemu-system-x86"} <= _names(namespace)
    await lab.down()
    assert traces(lab_root) == set()
    assert _names(namespace) == set()


def _names(namespace: Path) -> set[str]:
    """What the processes in a PID namespace are called; a zombie, which has no words, is none any more."""
    names = set()
    for folder in Path("/proc").glob("[0-9]*"):
        # It may end while we look, and some are out of reach in a sandbox.
        with suppress(OSError):
            if (folder / "ns/pid").readlink() == namespace and (folder / "cmdline").read_bytes():
                names.add((folder / "comm").read_text().strip())
    return names


async def test_a_host_that_was_killed_still_knows_its_guests(lab_root: Path) -> None:
    first = (await lab.up(2, libvirt=True)).lab
    async with running(first.hosts[0]):
        pass
    assert first.hosts[0].init is not None
    kill(first.hosts[0].init)
    assert lab.status().hosts[0].libvirt is False
    again = await lab.up(2)
    assert [host.name for host in again.started] == ["hostA"]
    assert (await on(again.lab.hosts[0], "virsh", "domstate", "web1")).split() == ["shut", "off"]
    assert await on(again.lab.hosts[1], "virsh", "list", "--all", "--name") == "\n"


async def test_further_hosts_of_a_lab_with_libvirt_have_it_too(lab_root: Path) -> None:
    await lab.up(1, libvirt=True)
    hosts = (await lab.up(2)).lab.hosts
    assert (await lab.up(2, libvirt=True)).started == ()
    assert await on(hosts[1], "virsh", "-c", "qemu+ssh://hostA/system", "hostname") == "hostA\n\n"
    assert [host.libvirt for host in lab.status().hosts] == [True, True]


async def test_hosts_without_libvirt_stay_as_they_are(lab_root: Path) -> None:
    before = await lab.up(1)
    with pytest.raises(RefusedError, match="have no libvirt") as caught:
        await lab.up(1, libvirt=True)
    assert caught.value.hint == "qemu-esd lab down, then up --libvirt"
    assert (await lab.up(1)).lab == before.lab
    assert lab.status().hosts[0].libvirt is None
    assert "virt" not in await on(before.lab.hosts[0], "sh", "-c", "ps -eo comm=; ls /run")


def _kill_up(hosts: int, place: str) -> None:
    argv = [sys.executable, "-m", "tests.lab.mortal", "up-libvirt", str(hosts), place]
    assert subprocess.run(argv, cwd=_CHECKOUT, check=False, timeout=60).returncode == -signal.SIGKILL


@pytest.mark.parametrize("place", ["write_settings:1", "_wait_for_all:1", "commit:2"])
async def test_an_up_that_was_killed(lab_root: Path, place: str) -> None:
    _kill_up(2, place)
    hosts = (await lab.up(2, libvirt=True)).lab.hosts
    assert lab.status().state is lab.LabState.UP
    assert await on(hosts[0], "virsh", "-c", "qemu+ssh://hostB/system", "hostname") == "hostB\n\n"


async def test_a_killed_up_decides_nothing(lab_root: Path) -> None:
    _kill_up(1, "claim_data:1")
    await lab.up(1)
    assert lab.status().hosts[0].libvirt is None


def test_the_words(lab_root: Path) -> None:
    assert CliRunner().invoke(app, ["up", "--hosts", "1", "--libvirt"]).exit_code == 0
    assert "  up      libvirt: yes  " in CliRunner().invoke(app, ["status"]).stdout
    told = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)
    assert told["hosts"][0]["libvirt"] is True


@pytest.mark.parametrize(
    ("program", "package"),
    [
        ("libvirtd", "libvirt-daemon"),
        ("virsh", "libvirt-clients"),
        ("virt-qemu-run", "libvirt-daemon-driver-qemu"),
    ],
)
def test_a_missing_program_is_named_with_its_package(lab_root: Path, program: str, package: str) -> None:
    path = shutil.which(libvirt_daemon() if program == "libvirtd" else program, path=SBIN)
    script = 'mount --bind /dev/null "$(readlink -f "$0")"; exec "$@"'
    words = "from qemu_esd.cli.app import main; main()"
    argv = ["unshare", "--mount", "sh", "-c", script, str(path), sys.executable, "-c", words, "lab", "up", "--libvirt"]
    done = subprocess.run(argv, cwd=_CHECKOUT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert f"the lab needs {program}" in done.stderr
    assert f"apt-get install {package}" in done.stderr
    assert traces(lab_root) == set()
