"""What the tests of the lab share."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from qemu_esd.hosts import lab
from qemu_esd.hosts.base import run
from qemu_esd.hosts.lab.state import lab_data
from qemu_esd.hosts.netns import call_in

T = TypeVar("T")


async def on(host: lab.LabHost, *argv: str) -> str:
    """What a program on the host prints; it must end with 0."""
    async with lab.connect(host) as opened:
        return (await run(opened, argv)).text


def inside(host: lab.LabHost, function: Callable[[], T]) -> T:
    """Call `function` in the host's network namespace."""
    assert host.init is not None
    descriptor = os.open(f"/proc/{host.init.pid}/ns/net", os.O_RDONLY)
    try:
        return call_in(descriptor, function)
    finally:
        os.close(descriptor)


def connected(client: lab.LabHost, server: lab.LabHost) -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection from one host to the main address of another."""
    with inside(server, lambda: socket.create_server((server.address, 0))) as listener:
        port = listener.getsockname()[1]
        one = inside(client, lambda: socket.create_connection((server.address, port), timeout=5))
        other, _ = listener.accept()
    return one, other


def traces(root: Path) -> set[str]:
    """All that the machine has of the lab at `root`: folders, processes, mounts, network devices."""
    folders = {str(path) for path in (root, lab_data(root)) if path.exists()}
    mounts = {line for line in Path("/proc/mounts").read_text().splitlines() if "qemu-esd" in line or str(root) in line}
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout.split("\n")
    devices = {line for line in links if re.match(r"esd0|c\d+@|p\d+-\d+|to-host", line)}
    return folders | processes(root) | mounts | devices


def processes(root: Path) -> set[str]:
    """Processes of the lab at `root`, by the words they were started with."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            words = _words(folder)
            if str(root) in words and any(word.endswith("lab/init.py") for word in words):
                found.add(f"{folder.name} {' '.join(words)}")
    return found


def _words(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
