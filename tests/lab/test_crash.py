"""Kills: of a host, of the switch, and of `lab up` and `lab down` themselves at any step."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qemu_esd.errors import HostError
from qemu_esd.hosts import lab
from qemu_esd.hosts.lab.process import Process
from qemu_esd.hosts.lab.state import lab_data, locked
from tests.lab.tools import on, processes, traces

pytestmark = pytest.mark.lab

_CHECKOUT = Path(__file__).parents[2]
# Where to kill: steps, in tenths of the way (each single one would take minutes), and the places that matter most.
_PLACES_IN_UP = [
    "save:1",
    "claim_data:1",
    "plug:1",
    "_wait_for_all:1",
    "save:2",
    "commit:1",
    "commit:2",
    "commit:3",
]
_PLACES_IN_DOWN = ["kill:2", "remove_lab:1", "_remove_tree:2"]


def _mortal(action: str, hosts: int, place: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.lab.mortal", action, str(hosts), place]
    return subprocess.run(argv, cwd=_CHECKOUT, capture_output=True, text=True, check=False, timeout=60)


def _steps(action: str, hosts: int) -> int:
    """How many steps an `up` or `down` of the lab as it is now takes; does it."""
    done = _mortal(action, hosts, "never")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def _kill_at(action: str, hosts: int, place: str) -> None:
    assert _mortal(action, hosts, place).returncode == -signal.SIGKILL


def _place(place: int | str, steps: int) -> str:
    return place if isinstance(place, str) else str(steps * place // 10)


@pytest.fixture(scope="module")
def steps_of_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """How many steps it takes to bring up two hosts where there is nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QEMU_ESD_LAB", str(tmp_path_factory.mktemp("steps") / "lab"))
        patch.delenv("QEMU_ESD_LAB_DATA", raising=False)
        yield _steps("up", 2)
        asyncio.run(lab.down())


def _end(process: Process | None) -> None:
    assert process is not None
    handle = os.pidfd_open(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    assert select.select([handle], [], [], 10)[0]
    os.close(handle)


async def test_a_killed_host_is_seen_and_started_again_on_its_disks(lab_root: Path) -> None:
    first = (await lab.up(3)).lab
    await on(first.hosts[1], "sh", "-c", "echo data > /srv/file; echo gone > /run/file")
    _end(first.hosts[1].init)
    with pytest.raises(HostError, match="does not run"):
        lab.open_socket(first.hosts[1])
    now = lab.status()
    assert now.state is lab.LabState.BROKEN
    assert [host.state for host in now.hosts] == [lab.HostState.UP, lab.HostState.DEAD, lab.HostState.UP]
    again = await lab.up(3)
    assert [host.name for host in again.started] == ["hostB"]
    assert again.lab.hosts[::2] == first.hosts[::2]
    assert again.lab.hosts[1].machine_id == first.hosts[1].machine_id
    assert lab.status().state is lab.LabState.UP
    assert await on(again.lab.hosts[1], "sh", "-c", "cat /srv/file; ls /run/file || true") == "data\n"
    await _all_reach_all(again.lab.hosts)


async def test_a_killed_switch_is_seen_and_replaced_under_running_hosts(lab_root: Path) -> None:
    first = (await lab.up(2)).lab
    await on(first.hosts[0], "touch", "/run/still-here")
    assert first.switch is not None
    # As long as somebody holds it, the old namespace lives on, and the hosts' old cables with it.
    held = os.open(f"/proc/{first.switch.pid}/ns/net", os.O_RDONLY)
    _end(first.switch)
    now = lab.status()
    assert (now.state, now.switch) == (lab.LabState.BROKEN, False)
    again = await lab.up(2)
    os.close(held)
    assert again.started == ()
    assert again.lab.hosts == first.hosts
    assert await on(again.lab.hosts[0], "ls", "/run/still-here") == "/run/still-here\n"
    await _all_reach_all(again.lab.hosts)


async def test_everything_killed_is_stale_and_comes_back(lab_root: Path) -> None:
    built = (await lab.up(2)).lab
    for process in (built.switch, *(host.init for host in built.hosts)):
        _end(process)
    assert lab.status().state is lab.LabState.STALE
    await _all_reach_all((await lab.up(2)).lab.hosts)


@pytest.mark.parametrize("place", [2, 5, 8, *_PLACES_IN_UP])
async def test_up_killed_then_up(lab_root: Path, steps_of_up: int, place: int | str) -> None:
    _kill_at("up", 2, _place(place, steps_of_up))
    lab.status()
    hosts = (await lab.up(2)).lab.hosts
    assert lab.status().state is lab.LabState.UP
    assert len(processes(lab_root)) == 3
    assert await on(hosts[0], "ssh", "hostB", "hostname") == "hostB\n"


async def test_what_a_killed_up_left_is_not_taken_for_a_hosts_disk(lab_root: Path) -> None:
    _kill_at("up", 2, "plug:1")
    (lab_data(lab_root) / "hostA/srv/old").touch()
    hosts = (await lab.up(2)).lab.hosts
    assert await on(hosts[0], "ls", "/srv") == ""


@pytest.mark.parametrize("place", [1, 3, 4, 6, 7, 9, *_PLACES_IN_UP])
async def test_up_killed_then_down(lab_root: Path, steps_of_up: int, place: int | str) -> None:
    _kill_at("up", 2, _place(place, steps_of_up))
    await lab.down()
    assert traces(lab_root) == set()


@pytest.mark.parametrize("place", [3, 7, "plug:1", "tell_of_others:2", "save:1", "commit:1"])
async def test_adding_a_host_killed_leaves_the_others_in_peace(lab_root: Path, place: int | str) -> None:
    if isinstance(place, int):
        await lab.up(2)
        place = _place(place, _steps("up", 3))
        await lab.down()
    before = (await lab.up(2)).lab
    _kill_at("up", 3, place)
    await _all_reach_all(before.hosts)
    after = (await lab.up(3)).lab
    assert after.hosts[:2] == before.hosts
    assert await on(after.hosts[2], "ssh", "hostA", "hostname") == "hostA\n"


@pytest.mark.parametrize("place", [1, 3, 5, 7, 9, *_PLACES_IN_DOWN])
async def test_down_killed_then_down(lab_root: Path, place: int | str) -> None:
    await lab.up(2)
    if isinstance(place, int):
        place = _place(place, _steps("down", 0))
        await lab.up(2)
    _kill_at("down", 0, place)
    await lab.down()
    assert traces(lab_root) == set()


def test_two_ups_at_once_make_one_lab(lab_root: Path) -> None:
    argv = [sys.executable, "-m", "tests.lab.mortal", "up", "2", "never"]
    both = [subprocess.Popen(argv, cwd=_CHECKOUT, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [each.wait(60) for each in both] == [0, 0]
    assert len(processes(lab_root)) == 3
    assert lab.status().state is lab.LabState.UP


async def test_up_and_down_at_once_in_one_process(lab_root: Path) -> None:
    await asyncio.gather(lab.up(2), lab.down(), lab.up(1), lab.down())
    await lab.down()
    assert traces(lab_root) == set()


def test_who_waited_for_a_lab_that_was_removed_gets_a_new_one(lab_root: Path) -> None:
    with ThreadPoolExecutor(1) as thread:
        with locked(lab_root):
            inode = lab_root.stat().st_ino
            waiting = thread.submit(_lock_and_look, lab_root)
            while not re.search(rf"-> FLOCK .*:{inode} ", Path("/proc/locks").read_text()):
                assert not waiting.done()
            lab_root.rmdir()
        assert waiting.result()


def _lock_and_look(root: Path) -> bool:
    with locked(root) as descriptor:
        return os.path.samestat(os.fstat(descriptor), root.stat())


def test_status_does_not_wait_for_an_up(lab_root: Path) -> None:
    with locked(lab_root):
        assert lab.status().state is lab.LabState.CHANGING


async def _all_reach_all(hosts: tuple[lab.LabHost, ...]) -> None:
    names = " ".join(host.name for host in hosts)
    for host in hosts:
        script = f"for h in {names}; do ssh -o ConnectTimeout=30 $h hostname; done"
        assert (await on(host, "sh", "-c", script)).split() == [each.name for each in hosts]
