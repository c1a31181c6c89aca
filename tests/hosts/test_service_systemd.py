"""Units where systemd runs: a real one, the first process of a PID namespace, with no units but those that it needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from qemu_esd.errors import EsdError
from qemu_esd.hosts import service
from qemu_esd.hosts.base import Completed, Host, run
from qemu_esd.hosts.local import LocalHost
from qemu_esd.hosts.service import Service
from tests.hosts.test_service import LISTEN, until

pytestmark = pytest.mark.lab

SYSTEMD, NAME, SECONDS = Path("/lib/systemd/systemd"), f"test-{os.getpid()}", 20
# Targets that every service wants, empty: nothing of the machine's is started, mounted or cleaned up.
_BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs none /run
mkdir /run/units
for target in esd sysinit basic shutdown; do
    printf '[Unit]\\nDefaultDependencies=no\\n' >/run/units/$target.target
done
export container=esd SYSTEMD_UNIT_PATH=/run/units
exec /lib/systemd/systemd --system --unit=esd.target --log-target=null --show-status=0
"""
NAMESPACES = ("--pid", "--fork", "--mount", "--mount-proc", "--uts", "--ipc", "--cgroup", "--kill-child")


class Inside(LocalHost):
    """This machine as it is seen beside that systemd."""

    def __init__(self, init: int) -> None:
        self._enter = (
            "nsenter",
            f"--target={init}",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--cgroup",
            "--wd=/",
            "--",
        )

    async def attempt(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        return await super().attempt((*self._enter, *argv), stdin)


@pytest.fixture(scope="module")
def booted() -> Iterator[Inside]:
    if not SYSTEMD.exists():
        pytest.skip("there is no systemd on this machine")
    with subprocess.Popen(["unshare", *NAMESPACES, "sh", "-c", _BOOT]) as outside:
        try:
            yield Inside(first_process(outside.pid))
        finally:
            outside.kill()


def first_process(outside: int) -> int:
    """The systemd, when it takes commands."""
    deadline = time.monotonic() + SECONDS
    while True:
        assert time.monotonic() < deadline, "systemd does not come up"
        children = Path(f"/proc/{outside}/task/{outside}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/root/run/systemd/private").is_socket():
            return int(children[0])
        time.sleep(0.02)


@pytest.fixture
async def host(booted: Inside, folder: Path) -> AsyncIterator[Host]:
    yield booted
    await service.stop(booted, unit_folder(folder), NAME)


def unit_folder(folder: Path) -> str:
    return f"{folder}/unit"


def listener(folder: Path, *, restart: bool) -> Service:
    argv = (sys.executable, "-I", "-S", "-c", LISTEN, f"{folder}/unit.sock")
    # As QEMU does, it takes the place of a socket that is left over.
    script = 'rm -f -- "$1"; shift; exec "$@"'
    return Service(NAME, unit_folder(folder), ("sh", "-c", script, "sh", f"{folder}/unit.sock", *argv), restart)


async def main_pid(host: Host) -> int:
    told = await run(host, ("systemctl", "show", "-p", "MainPID", "--value", f"qemu-esd-{NAME}.service"))
    return int(told.text)


async def test_it_is_systemd_that_keeps_it(host: Host, folder: Path) -> None:
    await service.start_ready(host, listener(folder, restart=False), f"{folder}/unit.sock")
    assert await service.state(host, unit_folder(folder), NAME) == "running"
    assert int(Path(unit_folder(folder), "pid").read_text()) == await main_pid(host)
    assert Path(unit_folder(folder), "log").read_text() == "listening\n"
    await service.stop(host, unit_folder(folder), NAME)
    assert await service.state(host, unit_folder(folder), NAME) == "gone"
    assert not Path(unit_folder(folder)).exists()
    assert await main_pid(host) == 0


async def test_what_is_killed_is_started_again_with_what_it_is_told_then(host: Host, folder: Path) -> None:
    await service.start_ready(host, listener(folder, restart=True), f"{folder}/unit.sock")
    first = await main_pid(host)
    await service.rewrite(host, unit_folder(folder), ("sh", "-c", f"echo again; exec sleep 600 # {folder}"))
    await run(host, ("kill", f"-{signal.SIGKILL.value}", str(first)))
    await until(lambda: "again" in Path(unit_folder(folder), "log").read_text())
    assert await service.state(host, unit_folder(folder), NAME) == "running"
    assert await main_pid(host) not in (0, first)


async def test_what_ends_stays_ended_and_leaves_its_words(host: Host, folder: Path) -> None:
    await service.start(host, Service(NAME, unit_folder(folder), ("sh", "-c", "echo last words; exit 7")))
    await until(Path(unit_folder(folder), "exit").exists)
    assert await service.state(host, unit_folder(folder), NAME) == "ended"
    assert Path(unit_folder(folder), "exit").read_text() == "7\n"
    assert await service.last_words(host, unit_folder(folder)) == "last words"


async def test_what_does_not_start_says_why(host: Host, folder: Path) -> None:
    broken = Service(NAME, unit_folder(folder), ("sh", "-c", "echo no such disk >&2; exit 1"))
    with pytest.raises(EsdError, match=f"{NAME} did not start: no such disk"):
        await service.start_ready(host, broken, f"{folder}/unit.sock")
