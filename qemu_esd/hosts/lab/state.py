"""What the lab knows about itself: where its folders are, lab.json, and the lock.

    $QEMU_ESD_LAB       (/run/qemu-esd-lab)      lab.json, keys, known_hosts, one folder per host: host key, log
    $QEMU_ESD_LAB_DATA  (/var/lib/qemu-esd-lab)  one folder per host: its /srv, /var/lib/qemu-esd, /tmp, root's home

Another root is another lab, independent of the first; unless it is named, its data folder follows from the root.
lab.json is written before anything that it describes can outlive us, and removed after everything else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qemu_esd.errors import RefusedError
from qemu_esd.hosts.base import SshTarget
from qemu_esd.hosts.lab.process import Process

DEFAULT_ROOT = Path("/run/qemu-esd-lab")
DEFAULT_DATA = Path("/var/lib/qemu-esd-lab")
MAX_HOSTS = 26
SSH_PORT = 22
_NAME = re.compile("host[A-Z]")


@dataclass(frozen=True)
class LabHost:
    """One host of the lab. `init`: its PID 1 as the machine sees it; None if it is known not to run."""

    number: int
    machine_id: str
    root: Path
    data: Path
    init: Process | None = None

    @property
    def name(self) -> str:
        return host_name(self.number)

    @property
    def address(self) -> str:
        return f"10.213.0.{10 + self.number}"

    @property
    def folder(self) -> Path:
        """Its host key and its log (PID 1 and sshd), on the machine."""
        return self.root / self.name

    @property
    def srv(self) -> Path:
        """The folder on the machine that the host sees as /srv: the place for images of tests."""
        return self.data / "srv"

    @property
    def running(self) -> bool:
        return self.init is not None and self.init.alive

    def ssh_target(self) -> SshTarget:
        return SshTarget(self.address, SSH_PORT, "root", self.root / "id_ed25519", self.root / "known_hosts")


@dataclass(frozen=True)
class Lab:
    """lab.json. `boot`: the boot that it belongs to; after another one nothing of it runs.

    `libvirt`: each host has a libvirtd.
    """

    root: Path
    data: Path
    boot: str
    libvirt: bool = False
    switch: Process | None = None
    hosts: tuple[LabHost, ...] = ()

    def with_host(self, host: LabHost) -> Lab:
        others = [other for other in self.hosts if other.number != host.number]
        return replace(self, hosts=tuple(sorted([*others, host], key=lambda each: each.number)))


def host_name(number: int) -> str:
    """hostA for 1, hostB for 2 …"""
    return "host" + chr(ord("A") + number - 1)


def lab_root() -> Path:
    """Raises RefusedError for what can be no folder of a lab."""
    root = Path(os.environ.get("QEMU_ESD_LAB") or DEFAULT_ROOT).absolute()
    if root.exists() and not root.is_dir():
        raise RefusedError(f"{root} is no folder", hint="QEMU_ESD_LAB names that of the lab")
    return root


def lab_data(root: Path) -> Path:
    named = os.environ.get("QEMU_ESD_LAB_DATA")
    if named:
        return Path(named).absolute()
    if root == DEFAULT_ROOT:
        return DEFAULT_DATA
    return DEFAULT_DATA.with_name(f"{DEFAULT_DATA.name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}")


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def load(root: Path) -> Lab | None:
    """The lab at `root` as lab.json tells it, or None. Raises RefusedError if the file cannot be read."""
    path = root / "lab.json"
    try:
        return _from_json(root, json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise RefusedError("the lab belongs to root", hint="run it with sudo") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(
            f"{path} is damaged: {error}", hint=f"reboot, or end its processes, and remove {root}"
        ) from error


def save(lab: Lab) -> None:
    write_file(lab.root / "lab.json", json.dumps(_to_json(lab), indent=1))


def find(name: str) -> LabHost | None:
    """The lab host called `name`, or None. Reads one file; does not look whether the host runs."""
    if not _NAME.fullmatch(name):
        return None
    lab = load(lab_root())
    return next((host for host in lab.hosts if host.name == name), None) if lab else None


@contextmanager
def locked(root: Path) -> Iterator[int]:
    """Hold the lock of the lab at `root` (made if it is missing), waiting for whoever holds it.

    Yields the descriptor that is locked: the lock lasts until every copy of it is closed.
    Raises RefusedError if the folder is something else: what is in a lab's folder is removed one day.
    """
    descriptor = _lock(root)
    try:
        if any(root.iterdir()) and not list(root.glob("lab.json*")):
            raise RefusedError(f"{root} is not empty and not a lab's", hint="name another folder in QEMU_ESD_LAB")
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(root: Path) -> int:
    while True:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # `lab down` was faster
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # `lab down` removes the folder while it holds the lock; then we hold the lock of nothing.
        if root.exists() and os.path.samestat(os.fstat(descriptor), root.stat()):
            return descriptor
        os.close(descriptor)


def write_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file so that a kill or a power cut leaves the old content or the new."""
    new = path.with_name(path.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.chmod(mode)
    new.rename(path)


def _to_json(lab: Lab) -> dict[str, Any]:
    hosts = [
        {"number": host.number, "machine_id": host.machine_id, "init": _process_json(host.init)} for host in lab.hosts
    ]
    switch = _process_json(lab.switch)
    return {"boot": lab.boot, "data": str(lab.data), "libvirt": lab.libvirt, "switch": switch, "hosts": hosts}


def _from_json(root: Path, raw: dict[str, Any]) -> Lab:
    data = Path(raw["data"])
    # Process numbers and start times begin anew with each boot.
    known = _process if raw["boot"] == boot_id() else _no_process
    hosts = tuple(
        LabHost(each["number"], each["machine_id"], root, data / host_name(each["number"]), known(each["init"]))
        for each in raw["hosts"]
    )
    # Not said by a lab that an earlier version has put up.
    return Lab(root, data, raw["boot"], raw.get("libvirt", False), known(raw["switch"]), hosts)


def _process_json(process: Process | None) -> dict[str, int] | None:
    return asdict(process) if process else None


def _process(raw: dict[str, int] | None) -> Process | None:
    return Process(raw["pid"], raw["start"]) if raw else None


def _no_process(raw: dict[str, int] | None) -> None:
    return None
