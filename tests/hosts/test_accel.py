"""Which accelerator a host has, by a QEMU that answers and by one that never does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qemu_esd.graph.accel import PROBE_CPU_SECONDS, PROBE_EXIT
from qemu_esd.hosts import accel
from qemu_esd.hosts.local import LocalHost
from qemu_esd.model.host import HostPaths

pytestmark = pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="where there is no /dev/kvm nothing is probed")

HERE = LocalHost()


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostPaths:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "state").mkdir()
    return HostPaths(str(tmp_path / "state"), str(tmp_path / "run"))


def put_qemu(folder: Path, probed: str) -> None:
    """A program in its place, which does so when it is to run the probe's guest, and notes how much time it has."""
    program = folder / accel.QEMU
    told = f'[ "$1" = --version ] && {{ echo 1.0; exit; }}\nulimit -t >>{folder}/limits\n'
    program.write_text(f"#!/bin/sh\n{told}{probed}\n")
    program.chmod(0o755)


async def test_one_that_answers_is_remembered(tmp_path: Path, paths: HostPaths) -> None:
    put_qemu(tmp_path, f"exit {PROBE_EXIT}")
    assert [await accel.choose(HERE, paths) for _ in range(2)] == ["kvm", "kvm"]
    assert await accel.works(HERE, paths) == "kvm"
    assert (tmp_path / "limits").read_text() == f"{PROBE_CPU_SECONDS}\n"


async def test_one_that_takes_all_the_time_it_gets_is_of_no_use(tmp_path: Path, paths: HostPaths) -> None:
    put_qemu(tmp_path, "while :; do :; done")
    assert await accel.works(HERE, paths) == "tcg"
    assert (tmp_path / "limits").read_text() == f"{PROBE_CPU_SECONDS}\n"
    assert list((tmp_path / "state").iterdir()) == []


async def test_one_that_does_nothing_is_of_no_use(tmp_path: Path, paths: HostPaths) -> None:
    put_qemu(tmp_path, "exec sleep 1000")
    assert await accel.choose(HERE, paths) == "tcg"
