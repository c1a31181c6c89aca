"""A newer QEMU than the machine's, in its place under /usr: on one lab host, or for all that this process starts. Or
Debian 13's, with its libvirt: for all of it, because its C library comes with them.

It is a mount in a mount namespace of the tests' own, so the machine's /usr is as it was.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images.newer_qemu import DEFAULT_CACHE, fetch
from tests.integration.support.machine import Machine

_CLONE_NEWNS = 0x00020000
TRIXIE = "trixie"
_AWAY = ("umount", "--lazy", "/usr")


@contextmanager
def unpacked(release: str | None = None) -> Iterator[Path]:
    """The files to be laid over /usr, where lab hosts see them. Raises FetchError."""
    root = fetch(DEFAULT_CACHE.with_name(release), release) if release else fetch()
    with tempfile.TemporaryDirectory(prefix="esd-test-", dir="/var/cache") as folder:
        usr = Path(shutil.copytree(root / "usr", f"{folder}/usr", symlinks=True))
        # Instead of the machine's modules, not besides them: QEMU aborts over those of another build, libvirtd ends.
        for modules in (*usr.glob("lib/*-linux-gnu/qemu"), *usr.glob("lib/*-linux-gnu/libvirt/connection-driver")):
            os.setxattr(modules, "trusted.overlay.opaque", b"y")
        # libvirtd does not start if a driver lacks something (a firewall, for its networks), and one is all it needs.
        for driver in usr.glob("lib/*-linux-gnu/libvirt/connection-driver/*"):
            if driver.name != "libvirt_driver_qemu.so":
                driver.unlink()
        yield usr


def _mount(usr: Path) -> tuple[str, ...]:
    return ("mount", "-t", "overlay", "-o", f"ro,lowerdir={usr}:/usr", "newer-qemu", "/usr")


@contextmanager
def on(usr: Path, *machines: Machine) -> Iterator[None]:
    """What is started on these hosts from now on is the newer one."""
    for machine in machines:
        machine.run(*_mount(usr))
    yield
    for machine in machines:
        machine.run(*_AWAY)


@contextmanager
def everywhere(usr: Path) -> Iterator[None]:
    """What this process starts from now on is the newer one, labs with all that is on them included."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "a mount namespace of our own")
    subprocess.run(("mount", "--make-rprivate", "/"), check=True)
    subprocess.run(_mount(usr), check=True)
    yield
    subprocess.run(_AWAY, check=True)
