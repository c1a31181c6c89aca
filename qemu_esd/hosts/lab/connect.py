"""From this machine to the daemons of a lab host: through the namespaces of the lab, while we stay in our own."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_esd.errors import HostError, TimedOutError
from qemu_esd.hosts.lab.libvirt import DAEMONS
from qemu_esd.hosts.lab.net import run_inside
from qemu_esd.hosts.lab.process import START_SECONDS, Process, readable
from qemu_esd.hosts.lab.state import SSH_PORT, LabHost, load
from qemu_esd.hosts.netns import connect_in

if TYPE_CHECKING:
    from qemu_esd.hosts.ssh import SshHost

_CONNECT_SECONDS = 5.0
_RETRY_SECONDS = 0.01


def open_socket(host: LabHost) -> socket.socket:
    """A connected, non-blocking TCP socket to the host's sshd. Raises HostError if there is no answer."""
    lab = load(host.root)
    if lab is None or lab.switch is None or not host.running:
        raise HostError("this lab host does not run", host=host.name, hint="qemu-esd lab up")
    try:
        return _connect(lab.switch, host, _CONNECT_SECONDS)
    except OSError as error:
        raise HostError(f"its sshd cannot be reached: {error}", host=host.name, hint="qemu-esd lab status") from error


@asynccontextmanager
async def connect(host: LabHost) -> AsyncIterator[SshHost]:
    """The lab host, open for commands until the context ends."""
    from qemu_esd.hosts.ssh import open_target

    async with open_target(host.name, host.ssh_target(), open_socket(host)) as opened:
        yield opened


def ssh_answers(switch: Process, host: LabHost, seconds: float) -> bool:
    """Whether the host's sshd says within `seconds` that it is one."""
    try:
        with _connect(switch, host, seconds) as sock:
            return readable(sock.fileno(), seconds) and sock.recv(4) == b"SSH-"
    except OSError:
        return False


def libvirt_answers(host: LabHost, seconds: float) -> bool:
    """Whether the host's libvirt speaks within `seconds`, with its driver for QEMU at work."""
    if host.init is None:
        return False
    root = f"/proc/{host.init.pid}/root"
    if not any(Path(root + socket).exists() for socket in DAEMONS.values()):
        return False
    words = ("timeout", f"{seconds:g}", "virsh", "--quiet", "--connect", "qemu:///system", "uri")
    return run_inside(host.init, words, spaces=("net", "mnt")).returncode == 0


def wait_for(daemon: str, host: LabHost, answers: Callable[[float], bool]) -> None:
    """Return when `answers`, which is given seconds, tells that the host's `daemon` does. Raises TimedOutError."""
    deadline = time.monotonic() + START_SECONDS
    while not answers(max(0.1, deadline - time.monotonic())):
        if time.monotonic() > deadline or not host.running:
            raise TimedOutError(
                f"an answer of its {daemon}",
                START_SECONDS,
                host=host.name,
                hint=f"read {host.folder}/log, or: qemu-esd lab down",
            )
        # Refused at once: it has been started and does not listen yet.
        time.sleep(_RETRY_SECONDS)


def _connect(switch: Process, host: LabHost, seconds: float) -> socket.socket:
    with _namespace(switch) as namespace:
        return connect_in(namespace, host.address, SSH_PORT, seconds)


@contextmanager
def _namespace(process: Process) -> Iterator[int]:
    descriptor = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY)
    try:
        # Looked at after it was opened: so it is not the namespace of a later process with the same number.
        if not process.alive:
            raise ConnectionError("the lab's switch is gone")
        yield descriptor
    finally:
        os.close(descriptor)
