"""What real QEMU programs can do; and programs that lack a driver."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qemu_esd.hosts.local import LocalHost
from qemu_esd.hypervisors import equipment
from qemu_esd.hypervisors.equipment import newest_common_cpu

# Builds for other distributions have a list of drivers that may be used.
DAEMON = """#!/bin/sh
case "$*" in
    *driver=nbd,*) echo "$0: --blockdev driver=nbd,node-name=n: Driver 'nbd' is not whitelisted" >&2; exit 1 ;;
    *driver=blkdebug,*) echo "$0: Parameter 'driver' does not accept value 'blkdebug'" >&2; exit 1 ;;
esac
exec /usr/bin/qemu-storage-daemon "$@"
"""
QEMU = """#!/bin/sh
if [ "$1" = -drive ]; then echo "Supported formats: raw qcow2 nbd null-co copy-on-read"; exit; fi
exec /usr/bin/qemu-system-x86_64 "$@"
"""


async def test_this_machines_has_all() -> None:
    told = await equipment.look(LocalHost(), "tcg")
    assert (told.daemon_lacks, told.qemu_lacks) == ((), ())
    assert told.daemon > (6, 0, 0)
    assert "qemu64" in told.cpus
    # TCG has no AVX-512.
    assert "Cascadelake-Server" not in told.cpus


async def test_one_that_lacks_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, script in (("qemu-storage-daemon", DAEMON), ("qemu-system-x86_64", QEMU)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told = await equipment.look(LocalHost(), "tcg")
    assert told.daemon_lacks == ("nbd", "blkdebug")
    assert told.qemu_lacks == ("blkdebug",)


def test_the_newest_cpu_that_all_have() -> None:
    assert (
        newest_common_cpu(frozenset({"qemu64", "Westmere", "Haswell-noTSX"}), frozenset({"Westmere", "qemu64"}))
        == "Westmere"
    )
    assert newest_common_cpu(frozenset({"EPYC"}), frozenset({"Westmere"})) is None
    assert newest_common_cpu() is None
