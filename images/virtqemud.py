"""Builds the virtqemud of this machine's libvirt from Debian's source: its packages have libvirtd only.

Only the daemon: library and driver for QEMU are those of the machine. Source, and what the build takes, are
downloaded by apt as newer_qemu.py does it, and laid over /usr meanwhile, so nothing is installed. A second
run does nothing. Takes root, and minutes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from images.newer_qemu import INSTALLED, FetchError, apt_of_its_own, lock, run, say

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "virtqemud"
BUILD_PACKAGES = (
    *("meson", "ninja-build", "gcc", "pkg-config", "xsltproc", "libxml2-utils", "python3-docutils", "rpcsvc-proto"),
    *("libc6-dev", "libglib2.0-dev", "libxml2-dev", "libgnutls28-dev", "libtirpc-dev", "libyajl-dev"),
)
# Where it looks for all is as Debian has it.
_OPTIONS = (
    *("--prefix=/usr", "--sysconfdir=/etc", "--localstatedir=/var", "--libexecdir=/usr/lib/libvirt"),
    *("-Dauto_features=disabled", "-Drunstatedir=/run", "-Ddriver_qemu=enabled", "-Ddriver_libvirtd=enabled"),
    *(
        "-Ddriver_remote=enabled",
        "-Dremote_default_mode=legacy",
        "-Dyajl=enabled",
        "-Ddocs=disabled",
        "-Dtests=disabled",
    ),
    *("-Dqemu_user=libvirt-qemu", "-Dqemu_group=libvirt-qemu"),
)
# In a mount namespace of its own.
_BUILD = """set -e
usr=$1; cd "$2"; shift 2
mount --make-rprivate /
mount -t overlay -o ro,lowerdir="$usr":/usr build /usr
meson setup build "$@"
ninja -C build src/virtqemud
"""


def build() -> Path:
    """The program. Raises FetchError.

    Several processes may call this at once: one builds, the others wait.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with lock(CACHE / "lock"):
        program = CACHE / _digest() / "virtqemud"
        if not program.exists():
            for stale in CACHE.glob("*/"):
                shutil.rmtree(stale)
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="building-") as work:
                _make(Path(work)).rename(program.parent)
    return program


def _digest() -> str:
    return hashlib.sha256(Path(__file__).read_bytes() + INSTALLED.read_bytes()).hexdigest()[:16]


def _make(work: Path) -> Path:
    """A folder with nothing but the program."""
    if os.geteuid() != 0:
        raise FetchError("virtqemud is built by root", "it lays what the build takes over /usr, which takes a mount")
    apt = apt_of_its_own(work, types="deb deb-src")
    say("building virtqemud of this machine's libvirt")
    run(*apt, "update")
    run(*apt, "install", "--download-only", "--no-install-recommends", *BUILD_PACKAGES)
    for package in (work / "apt/archives").glob("*.deb"):
        run("dpkg-deb", "--extract", str(package), str(work / "root"))
    version = run("dpkg-query", "--show", "--showformat=${source:Version}", "libvirt-daemon")
    run("sh", "-c", 'cd "$1" && shift && exec "$@"', "-", str(work), *apt, "source", f"libvirt={version}")
    source = next(work.glob("libvirt-*/"))
    run("unshare", "--mount", "sh", "-c", _BUILD, "-", str(work / "root/usr"), str(source), *_OPTIONS)
    made = work / "made"
    made.mkdir()
    shutil.copy(source / "build/src/virtqemud", made)
    return made
