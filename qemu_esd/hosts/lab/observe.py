"""`lab status`: what lab.json says, held against what runs."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from qemu_esd.hosts.lab.connect import libvirt_answers, ssh_answers
from qemu_esd.hosts.lab.links import Link, read_links
from qemu_esd.hosts.lab.state import Lab, LabHost, lab_data, lab_root, load

# A dead one is known at once, and a busy machine is no dead host.
_ANSWER_SECONDS = 10.0


class LabState(StrEnum):
    NONE = "none"  # nothing there
    UP = "up"  # everything runs and answers
    BROKEN = "broken"  # some of it
    STALE = "stale"  # nothing runs, something is left: a crash, a reboot
    CHANGING = "changing"  # another `up`, `down` or `link` is at work


class HostState(StrEnum):
    UP = "up"
    DEAD = "dead"  # its PID 1 is gone
    SILENT = "silent"  # it runs, and its sshd does not answer, or its libvirtd


@dataclass(frozen=True)
class HostStatus:
    """`pid`: of its PID 1 on the machine. `srv`: the folder of the machine that is its /srv.

    `libvirt`: whether its libvirtd answers; None where the lab has none.
    """

    name: str
    address: str
    state: HostState
    pid: int | None
    srv: Path
    libvirt: bool | None = None


@dataclass(frozen=True)
class LabStatus:
    root: Path
    data: Path
    state: LabState
    switch: bool
    hosts: tuple[HostStatus, ...]
    links: tuple[Link, ...]


def status() -> LabStatus:
    """The lab as it is now. Raises RefusedError if it is root's and we are not."""
    root = lab_root()
    changing = _is_locked(root)
    lab = load(root)
    data = lab.data if lab else lab_data(root)
    if changing:
        return LabStatus(root, data, LabState.CHANGING, False, (), ())
    if lab is None:
        state = LabState.STALE if root.exists() or data.exists() else LabState.NONE
        return LabStatus(root, data, state, False, (), ())
    return _look(lab)


def _look(lab: Lab) -> LabStatus:
    switch = lab.switch if lab.switch and lab.switch.alive else None
    hosts = tuple(_look_at(lab, host) for host in lab.hosts)
    links = read_links(switch, lab.hosts) if switch else ()
    return LabStatus(lab.root, lab.data, _overall(switch is not None, hosts), switch is not None, hosts, links)


def _look_at(lab: Lab, host: LabHost) -> HostStatus:
    if host.init is None or not host.running:
        return HostStatus(host.name, host.address, HostState.DEAD, None, host.srv, False if lab.libvirt else None)
    answered = lab.switch is not None and ssh_answers(lab.switch, host, _ANSWER_SECONDS)
    libvirt = libvirt_answers(host, _ANSWER_SECONDS) if lab.libvirt else None
    state = HostState.SILENT if not answered or libvirt is False else HostState.UP
    return HostStatus(host.name, host.address, state, host.init.pid, host.srv, libvirt)


def _overall(switch: bool, hosts: tuple[HostStatus, ...]) -> LabState:
    if hosts and switch and all(host.state is HostState.UP for host in hosts):
        return LabState.UP
    alive = switch or any(host.state is not HostState.DEAD for host in hosts)
    return LabState.BROKEN if alive else LabState.STALE


def _is_locked(root: Path) -> bool:
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, PermissionError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
