"""Kills: of a host, of the switch, and of `lab up` and `lab down` themselves at any step."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_esd.hosts import lab
from qemu_esd.hosts.lab.process import Process
from tests.lab.tools import on, processes, traces

pytestmark = pytest.mark.lab

_CHECKOUT = Path(__file__).parents[2]
# Tenths of the way; every step would take minutes.
_TENTHS = range(1, 10)


def _mortal(action: str, hosts: int, step: int) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.lab.mortal", action, str(hosts), str(step)]
    return subprocess.run(argv, cwd=_CHECKOUT, capture_output=True, text=True, check=False, timeout=60)


def _kill_at(action: str, hosts: int, step: int) -> None:
    assert _mortal(action, hosts, step).returncode == -signal.SIGKILL


async def _end(process: Process | None) -> None:
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    while process.alive:
        await asyncio.sleep(0.01)


async def test_a_killed_host_is_seen_and_started_again_on_its_disks(lab_root: Path) -> None:
    first = (await lab.up(3)).lab
    await on(first.hosts[1], "sh", "-c", "echo data > /srv/file; echo gone > /run/file")
    await _end(first.hosts[1].init)
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
    await _end(first.switch)
    now = lab.status()
    assert (now.state, now.switch) == (lab.LabState.BROKEN, False)
    again = await lab.up(2)
    assert again.started == ()
    assert again.lab.hosts == first.hosts
    assert await on(again.lab.hosts[0], "ls", "/run/still-here") == "/run/still-here\n"
    await _all_reach_all(again.lab.hosts)


async def test_everything_killed_is_stale_and_comes_back(lab_root: Path) -> None:
    built = (await lab.up(2)).lab
    for process in (built.switch, *(host.init for host in built.hosts)):
        await _end(process)
    assert lab.status().state is lab.LabState.STALE
    await _all_reach_all((await lab.up(2)).lab.hosts)


@pytest.mark.parametrize("tenth", _TENTHS)
async def test_up_killed_then_up(lab_root: Path, tenth: int) -> None:
    _kill_at("up", 2, _steps_of_up(lab_root) * tenth // 10)
    lab.status()
    await lab.up(2)
    assert lab.status().state is lab.LabState.UP
    assert len(processes(lab_root)) == 3
    await on(lab_host("hostA"), "ssh", "hostB", "hostname")


@pytest.mark.parametrize("tenth", _TENTHS)
async def test_up_killed_then_down(lab_root: Path, tenth: int) -> None:
    _kill_at("up", 2, _steps_of_up(lab_root) * tenth // 10)
    await lab.down()
    assert traces(lab_root) == set()


@pytest.mark.parametrize("tenth", _TENTHS)
async def test_adding_a_host_killed_leaves_the_others_in_peace(lab_root: Path, tenth: int) -> None:
    before = (await lab.up(2)).lab
    steps = int(_mortal("up", 3, 0).stdout)
    await lab.down()
    before = (await lab.up(2)).lab
    _kill_at("up", 3, steps * tenth // 10)
    await _all_reach_all(before.hosts)
    after = (await lab.up(3)).lab
    assert after.hosts[:2] == before.hosts
    await on(after.hosts[2], "ssh", "hostA", "hostname")


@pytest.mark.parametrize("tenth", _TENTHS)
async def test_down_killed_then_down(lab_root: Path, tenth: int) -> None:
    await lab.up(2)
    steps = int(_mortal("down", 0, 0).stdout)
    await lab.up(2)
    _kill_at("down", 0, steps * tenth // 10)
    await lab.down()
    assert traces(lab_root) == set()


async def test_two_ups_at_once_make_one_lab(lab_root: Path) -> None:
    argv = [sys.executable, "-m", "tests.lab.mortal", "up", "2", "0"]
    both = [subprocess.Popen(argv, cwd=_CHECKOUT, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [each.wait(60) for each in both] == [0, 0]
    assert len(processes(lab_root)) == 3
    assert lab.status().state is lab.LabState.UP


async def test_up_and_down_at_once_in_one_process(lab_root: Path) -> None:
    await asyncio.gather(lab.up(2), lab.down(), lab.up(1), lab.down())
    await lab.down()
    assert traces(lab_root) == set()


async def test_status_does_not_wait_for_an_up(lab_root: Path) -> None:
    from qemu_esd.hosts.lab.state import locked

    with locked(lab_root):
        assert lab.status().state is lab.LabState.CHANGING
    lab_root.rmdir()


def lab_host(name: str) -> lab.LabHost:
    host = lab.find(name)
    assert host is not None
    return host


async def _all_reach_all(hosts: tuple[lab.LabHost, ...]) -> None:
    names = " ".join(host.name for host in hosts)
    for host in hosts:
        script = f"for h in {names}; do ssh -o ConnectTimeout=5 $h hostname; done"
        assert (await on(host, "sh", "-c", script)).split() == [each.name for each in hosts]


def _steps_of_up(root: Path) -> int:
    steps = int(_mortal("up", 2, 0).stdout)
    asyncio.run_coroutine_threadsafe
    return steps
