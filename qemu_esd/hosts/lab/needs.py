"""What the lab takes from the machine: root, and four programs."""

from __future__ import annotations

import os
import shutil

from qemu_esd.errors import RefusedError
from qemu_esd.hosts.lab.process import SBIN

_PACKAGES = {"sshd": "openssh-server", "ip": "iproute2", "tc": "iproute2", "nsenter": "util-linux"}


def require_root() -> None:
    if os.geteuid() != 0:
        raise RefusedError("the lab makes namespaces and mounts, which takes root", hint="run it with sudo")


def require_programs() -> None:
    missing = [program for program in _PACKAGES if shutil.which(program, path=SBIN) is None]
    if missing:
        packages = " ".join(sorted({_PACKAGES[program] for program in missing}))
        raise RefusedError(f"the lab needs {', '.join(missing)}", hint=f"apt-get install {packages}")


def sshd_path() -> str:
    """sshd insists on being started by its full path."""
    path = shutil.which("sshd", path=SBIN)
    assert path is not None, "require_programs() comes first"
    return path
