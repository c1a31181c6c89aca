"""What the lab takes from the machine: root, and a few programs."""

from __future__ import annotations

import os
import shutil

from qemu_esd.errors import RefusedError
from qemu_esd.hosts.lab.libvirt import DAEMONS
from qemu_esd.hosts.lab.process import SBIN

_PACKAGES = {"sshd": "openssh-server", "ip": "iproute2", "tc": "iproute2", "nsenter": "util-linux"}
# The last one is never run: it comes with libvirt's driver for QEMU, which is no program.
_LIBVIRT = {"virsh": "libvirt-clients", "virt-qemu-run": "libvirt-daemon-driver-qemu"}
_DAEMON_PACKAGE = "libvirt-daemon"


def require_root() -> None:
    if os.geteuid() != 0:
        raise RefusedError("the lab makes namespaces and mounts, which takes root", hint="run it with sudo")


def require_programs(*, libvirt: bool) -> None:
    needed = _PACKAGES | {libvirt_daemon(): _DAEMON_PACKAGE} | _LIBVIRT if libvirt else _PACKAGES
    missing = [program for program in needed if not _is_there(program)]
    if missing:
        packages = " ".join(sorted({needed[program] for program in missing}))
        raise RefusedError(f"the lab needs {', '.join(missing)}", hint=f"apt-get install {packages}")


def libvirt_daemon() -> str:
    """The one that the machine has; the first one of them where it has none."""
    return next(filter(_is_there, DAEMONS), next(iter(DAEMONS)))


def _is_there(program: str) -> bool:
    return shutil.which(program, path=SBIN) is not None


def path_of(program: str) -> str:
    """Its full path, by which sshd insists on being started."""
    path = shutil.which(program, path=SBIN)
    assert path is not None, "require_programs() comes first"
    return path
