"""Unpacks a newer QEMU than this machine's: Debian's backports, with what they need, and nothing is installed.

    python3 images/newer_qemu.py [DIRECTORY]        default: .cache/newer-qemu of this repository

Or QEMU and libvirt of a later release of Debian, for tests: `fetch` with its name.
What is missing is downloaded by apt with lists and archives of its own, checked by Debian's keys, so the machine's apt
is as it was. A second run does nothing. Needs no root. Only the standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

DEFAULT_CACHE = Path(__file__).resolve().parent.parent / ".cache" / "newer-qemu"
PACKAGES = ("qemu-system-x86", "qemu-utils", "qemu-system-common")
LIBVIRT = ("libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-clients")
# What apt resolves against: other packages on the machine mean other downloads.
INSTALLED = Path("/var/lib/dpkg/status")
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
UNUSED = ("usr/share/doc", "usr/share/man")


class FetchError(Exception):
    """There is no newer QEMU to be had. `hint` says what to look at."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


def fetch(cache: Path = DEFAULT_CACHE, release: str | None = None) -> Path:
    """The folder with the `usr` to be laid over the machine's: the backports' QEMU, or QEMU and libvirt of a later
    `release` (each has its own cache). Raises FetchError.

    Several processes may call this for the same directory at once: one downloads, the others wait.
    """
    cache = cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    with lock(cache / "lock"):
        # The root bears the name of what it was made from, and gets it when it is complete.
        root = cache / f"root-{_digest()}"
        if not root.exists():
            for stale in cache.glob("root-*"):
                shutil.rmtree(stale)
            with tempfile.TemporaryDirectory(dir=cache, prefix="unpacking-") as work:
                _unpack(Path(work), release).rename(root)
    return root


def _digest() -> str:
    return hashlib.sha256(Path(__file__).read_bytes() + INSTALLED.read_bytes()).hexdigest()[:16]


def _unpack(work: Path, release: str | None) -> Path:
    suite = release or f"{_codename()}-backports"
    packages = _download(work, suite, (*PACKAGES, *LIBVIRT) if release else PACKAGES)
    root = work / "root"
    for package in packages:
        run("dpkg-deb", "--extract", str(package), str(root))
    if not (root / "usr/bin/qemu-system-x86_64").exists():
        raise FetchError(f"{suite} has no newer QEMU than this machine", "apt-cache policy qemu-system-x86")
    for folder in UNUSED:
        shutil.rmtree(root / folder, ignore_errors=True)
    return root


def _download(work: Path, suite: str, wanted: tuple[str, ...]) -> list[Path]:
    """Those packages that an upgrade of this machine would bring with it, by the rules of apt."""
    apt = apt_of_its_own(work, suite)
    say(f"downloading QEMU of {suite}")
    run(*apt, "update")
    run(*apt, "install", "--download-only", "--no-install-recommends", f"--target-release={suite}", *wanted)
    return sorted((work / "apt/archives").glob("*.deb"))


def apt_of_its_own(work: Path, *suites: str, types: str = "deb") -> tuple[str, ...]:
    """The words of an apt-get that knows the machine's release and `suites`. It leaves the machine's apt as it is."""
    for folder in ("sources", "lists/partial", "apt/archives/partial"):
        (work / folder).mkdir(parents=True)
    (work / "sources/debian.sources").write_text(_sources(suites, types))
    own = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": f"{work}/sources",
        "Dir::State::lists": f"{work}/lists",
        "Dir::Cache": f"{work}/apt",
        "Acquire::Languages": "none",
        # Nothing is installed, so the machine's lock is not needed, and neither is root.
        "Debug::NoLocking": "1",
    }
    return ("apt-get", "--quiet", "--yes", *(f"--option={name}={value}" for name, value in own.items()))


def _sources(suites: tuple[str, ...], types: str) -> str:
    known = " ".join((_codename(), *suites))
    return f"Types: {types}\nURIs: {_mirror()}\nSuites: {known}\nComponents: main\nSigned-By: {KEYS}\n"


def _codename() -> str:
    try:
        return platform.freedesktop_os_release()["VERSION_CODENAME"]
    except (OSError, KeyError) as error:
        raise FetchError("this is no Debian release", "see /etc/os-release") from error


def _mirror() -> str:
    """Where this machine gets its Debian from: somewhere else there may be no way to."""
    targets = run("apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages")
    for line in targets.splitlines():
        release, address = line.split(maxsplit=1)
        if release == _codename():
            return address
    raise FetchError(f"apt has no source of {_codename()}", "see /etc/apt/sources.list.d")


def run(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError as error:
        raise FetchError(f"{argv[0]} cannot be run: {error.strerror}", "this takes a Debian machine") from error
    if done.returncode:
        words = "; ".join(done.stderr.strip().splitlines()[-2:])
        raise FetchError(f"{argv[0]} failed: {words}", "look whether this machine reaches its mirror")
    return done.stdout


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def say(text: str) -> None:
    print(f"fetching: {text}", file=sys.stderr, flush=True)


def main() -> int:
    cache = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_CACHE
    try:
        print(fetch(cache))
    except FetchError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
