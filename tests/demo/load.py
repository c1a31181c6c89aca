"""The guest of the demo: what is on its disks, and what its load says on the console."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from images import pattern
from images.build import DEFAULT_CACHE
from images.console import STATUS, LoadLine, parse
from images.pattern import MIB
from qemu_esd.hosts import lab
from qemu_esd.model.host import HostPaths, guest_sockets
from tests.demo.stage import BrokenPromiseError, Stage

VM = "vm1"
# Mostly in the first MiBs of each disk, so that the rest of the map shows what is read on purpose.
LOAD = (
    "esd.mode=verify esd.rate=100 esd.mix=49/50/1 esd.area=4M esd.spread=0 "
    "esd.disk=vda:seed=7,fill=full esd.disk=vdb:seed=9,fill=sparse"
)
PATHS = HostPaths("/var/lib/qemu-esd", "/run/qemu-esd")
WAIT_SECONDS = 90.0
POLL_SECONDS = 0.5


def make_disks(srv: Path) -> None:
    """In what hostA sees as /srv: a raw image, and a qcow2 image over a backing file that holds its data."""
    pattern.fill(srv / "system.img", 512 * MIB, seed=7, fill="full")
    pattern.fill(srv / "base.img", 256 * MIB, seed=9, fill="sparse")
    _qemu_img("convert", "-f", "raw", "-O", "qcow2", str(srv / "base.img"), str(srv / "base.qcow2"))
    _qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", str(srv / "data.qcow2"))
    (srv / "base.img").unlink()


def _qemu_img(*words: str) -> None:
    subprocess.run(("qemu-img", *words), check=True)


def put_kernel(*folders: Path) -> None:
    """Kernel and initrd, where each host sees them: the checkout may lie in a folder that a host has its own of."""
    for folder in folders:
        for name in ("kernel", "initrd"):
            shutil.copyfile(DEFAULT_CACHE / name, folder / name)


def lines(stage: Stage) -> list[LoadLine]:
    """All that the load has said so far, on whichever hosts, in order."""
    return [line for line in map(parse, stage.ask("vm", "log", VM).splitlines()) if line]


def wait_for(stage: Stage, what: str, found: Callable[[list[LoadLine]], LoadLine | None]) -> LoadLine:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        said = lines(stage)
        line = found(said)
        if line:
            return line
        time.sleep(POLL_SECONDS)
    last = stage.ask("vm", "log", VM)[-1000:]
    raise BrokenPromiseError(f"{what} within {WAIT_SECONDS:.0f} s; the console ends with:\n{last}")


def worked(stage: Stage, operations: int) -> LoadLine:
    """Wait until the load has done so many operations more; its latest report."""
    done = _latest(lines(stage)).number("ops")
    return wait_for(stage, f"{operations} more operations", lambda said: _after(_latest(said), done + operations))


def _latest(said: list[LoadLine]) -> LoadLine:
    return [line for line in said if line.word == STATUS][-1]


def _after(line: LoadLine, operations: int) -> LoadLine | None:
    return line if line.number("ops") >= operations else None


def tell(host: str, command: str) -> LoadLine:
    """Give the load a command on its console, which is a socket on the host where it runs; its answer."""
    there = lab.find(host)
    assert there is not None and there.init is not None
    # As the machine sees what the host's first process sees.
    path = f"/proc/{there.init.pid}/root{guest_sockets(PATHS, VM).console}"
    with socket.socket(socket.AF_UNIX) as console:
        console.settimeout(WAIT_SECONDS)
        console.connect(path)
        console.sendall(f"{command}\n".encode())
        return _heard(console, command.split()[0])


def _heard(console: socket.socket, word: str) -> LoadLine:
    with suppress(TimeoutError), console.makefile(errors="replace") as said:
        for line in filter(None, map(parse, said)):
            if line.word == word:
                return line
    raise BrokenPromiseError(f"no {word} on the console of {VM} within {WAIT_SECONDS:.0f} s")
