"""Builds the small guest: a Debian cloud kernel, busybox, drivers of disk buses, the load of images/load/.

    python3 -m images.build [DIRECTORY]        default: .cache/guest of this repository

The kernel comes from the newest /boot/vmlinuz-*-cloud-amd64; where there is none, from the Debian package,
downloaded and unpacked into the directory without being installed. The same inputs give the same bytes, and a
second run with the same inputs does nothing. Needs neither root nor the network once the packages are there.
Kernel and initrd are not compressed: an emulated guest would take long to unpack them. Only the standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from images.kernel import unpacked

HERE = Path(__file__).resolve().parent
DEFAULT_CACHE = HERE.parent / ".cache" / "guest"
# What the guest's kernel is told; first what it needs, then what an emulated one is faster without.
KERNEL_WORDS = "console=ttyS0 quiet panic=-1 cryptomgr.notests noreplace-smp"
CFLAGS = ("-static", "-O2", "-Wall", "-Wextra", "-pthread", "-Wl,--build-id=none")

# In the order in which they are loaded; what a module needs comes before it. One that this kernel has built
# in (cloud 6.1: nvme) is left out, and so is one that it has not at all (cloud 6.1: ahci, so the guest sees
# `ide` disks on the machine type pc but not on q35).
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "scsi_common",
    "scsi_mod",
    "sd_mod",
    "virtio_scsi",
    "nvme-core",
    "nvme",
    "libata",
    "libahci",
    "ahci",
    "ata_piix",
)


class BuildError(Exception):
    """The guest cannot be built here. `hint` is the command that mends it."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


@dataclass(frozen=True)
class GuestImage:
    """What QEMU is given as -kernel and -initrd."""

    kernel: Path
    initrd: Path


@dataclass(frozen=True)
class Inputs:
    """What the guest is made of; `modules` in load order, `absent` are names that the kernel has not."""

    kernel: Path
    busybox: Path
    sources: tuple[Path, ...]
    modules: tuple[Path, ...]
    absent: tuple[str, ...]

    def digest(self) -> str:
        """A hash over every input's content, this file's included."""
        digest = hashlib.sha256()
        own = (Path(__file__), HERE / "kernel.py", HERE / "init")
        for path in (*own, *self.sources, self.kernel, self.busybox, *self.modules):
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def build(cache: Path = DEFAULT_CACHE) -> GuestImage:
    """The guest in `cache`, built if it is not there or not up to date. Raises BuildError.

    Several processes may call this for the same directory at once: one builds, the others wait.
    """
    cache = cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    image = GuestImage(kernel=cache / "kernel", initrd=cache / "initrd")
    with _lock(cache / "lock"):
        inputs = _find_inputs(cache)
        stamp = cache / "inputs.sha256"
        if _is_up_to_date(image, stamp, inputs.digest()):
            _say("up to date")
            return image
        # The stamp goes first and comes back last: a kill between the two means "not up to date".
        stamp.unlink(missing_ok=True)
        _make(inputs, image)
        stamp.write_text(inputs.digest())
    return image


def _is_up_to_date(image: GuestImage, stamp: Path, digest: str) -> bool:
    return image.kernel.exists() and image.initrd.exists() and stamp.exists() and stamp.read_text() == digest


def _make(inputs: Inputs, image: GuestImage) -> None:
    with tempfile.TemporaryDirectory(dir=image.initrd.parent, prefix="building-") as work:
        _say("compiling the load")
        load = _compile(inputs.sources, Path(work) / "load")
        _say("packing the initrd")
        initrd = Path(work) / "initrd"
        initrd.write_bytes(_initrd(inputs, load.read_bytes()))
        kernel = Path(work) / "kernel"
        kernel.write_bytes(_kernel(inputs.kernel.read_bytes()))
        kernel.replace(image.kernel)
        initrd.replace(image.initrd)
    if inputs.absent:
        _say(f"this kernel has no {', '.join(inputs.absent)}")
    size = image.initrd.stat().st_size >> 10
    _say(f"built in {image.initrd.parent} from {inputs.kernel}, initrd {size} KiB")


def _kernel(image: bytes) -> bytes:
    _say("unpacking the kernel")
    plain = unpacked(image)
    if plain is None:
        _say("it is not compressed by LZ4, and stays as it is: guests take longer to boot")
    return plain or image


def _find_inputs(cache: Path) -> Inputs:
    packages = cache / "packages"
    root, release = _find_kernel(Path("/")) or _find_kernel(packages) or _download_kernel(packages)
    modules, absent = _find_modules(root / "lib" / "modules" / release)
    return Inputs(
        kernel=root / "boot" / f"vmlinuz-{release}",
        busybox=_find_busybox(),
        sources=tuple(sorted((HERE / "load").glob("*.[ch]"))),
        modules=modules,
        absent=absent,
    )


def _find_kernel(root: Path) -> tuple[Path, str] | None:
    """The root directory and the release of the newest cloud kernel that has its modules there."""
    releases = [path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*-cloud-amd64")]
    complete = [name for name in releases if (root / "lib" / "modules" / name / "kernel").is_dir()]
    return (root, max(complete, key=_version)) if complete else None


def _version(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


def _download_kernel(packages: Path) -> tuple[Path, str]:
    """Unpacks the Debian package that linux-image-cloud-amd64 stands for into `packages`."""
    hint = "apt-get install linux-image-cloud-amd64"
    _say("no cloud kernel in /boot: downloading the package linux-image-cloud-amd64")
    with tempfile.TemporaryDirectory(dir=packages.parent, prefix="unpacking-") as directory:
        work = Path(directory)
        depends = _run(("apt-cache", "depends", "linux-image-cloud-amd64"), work, hint)
        name = re.search(r"Depends: (linux-image-\S+)", depends)
        if name is None:
            raise BuildError("apt knows no package linux-image-cloud-amd64", hint)
        _run(("apt-get", "download", name[1]), work, hint)
        for package in work.glob("linux-image-*.deb"):
            _run(("dpkg", "-x", str(package), "root"), work, hint)
        # Renamed when complete, so that a kill leaves no half-unpacked kernel to be found by the next run.
        (work / "root").replace(packages)
    found = _find_kernel(packages)
    if found is None:
        raise BuildError(f"the package {name[1]} has no cloud kernel", hint)
    return found


def _find_modules(directory: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The module files in load order, and the names of those that this kernel has not."""
    builtin = {Path(line).stem for line in (directory / "modules.builtin").read_text().split()}
    files = {path.name.partition(".ko")[0]: path for path in (directory / "kernel").rglob("*.ko*")}
    absent = tuple(name for name in MODULES if name not in files and name not in builtin)
    if "virtio_blk" in absent:
        hint = "apt-get install --reinstall linux-image-cloud-amd64"
        raise BuildError(f"{directory} has no virtio_blk", hint)
    return tuple(files[name] for name in MODULES if name in files), absent


def _find_busybox() -> Path:
    path = _program("busybox", "busybox-static")
    if b"/ld-linux" in path.read_bytes()[:8192]:
        raise BuildError(f"{path} is not statically linked", "apt-get install busybox-static")
    return path


def _program(name: str, package: str) -> Path:
    path = shutil.which(name)
    if path is None:
        raise BuildError(f"{name} is not installed", f"apt-get install {package}")
    return Path(path)


def _compile(sources: tuple[Path, ...], output: Path) -> Path:
    _program("gcc", "gcc libc6-dev")
    files = tuple(path.name for path in sources if path.suffix == ".c")
    hint = "apt-get install gcc libc6-dev"
    _run(("gcc", *CFLAGS, "-o", str(output), *files), HERE / "load", hint)
    _run(("strip", str(output)), HERE, "apt-get install binutils")
    return output


def _run(argv: tuple[str, ...], cwd: Path, hint: str) -> str:
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{argv[0]} cannot be run: {error.strerror}", hint) from error
    if done.returncode:
        raise BuildError(f"{argv[0]} failed:\n{done.stderr.strip()}", hint)
    return done.stdout


def _initrd(inputs: Inputs, load: bytes) -> bytes:
    """A cpio archive ("newc"); /dev/console is in it because the kernel opens that before /init runs."""
    order = [path.name.partition(".ko")[0] for path in inputs.modules]
    parts = [
        _cpio_entry("bin", stat.S_IFDIR | 0o755),
        _cpio_entry("bin/busybox", stat.S_IFREG | 0o755, inputs.busybox.read_bytes()),
        _cpio_entry("bin/load", stat.S_IFREG | 0o755, load),
        _cpio_entry("dev", stat.S_IFDIR | 0o755),
        _cpio_entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        _cpio_entry("init", stat.S_IFREG | 0o755, (HERE / "init").read_bytes()),
        _cpio_entry("modules", stat.S_IFDIR | 0o755),
        *(
            _cpio_entry(f"modules/{name}.ko", stat.S_IFREG | 0o644, _plain_module(path))
            for name, path in zip(order, inputs.modules, strict=True)
        ),
        _cpio_entry("modules/order", stat.S_IFREG | 0o644, "".join(f"{name}\n" for name in order).encode()),
        _cpio_entry("TRAILER!!!", 0),
    ]
    return b"".join(parts)


def _plain_module(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def _cpio_entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """One file of a "newc" archive (man 5 cpio): owner root, time 0, inode 0 as there are no hard links."""
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name.encode() + b"\0") + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _say(text: str) -> None:
    print(f"guest image: {text}", file=sys.stderr, flush=True)


def main() -> int:
    cache = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_CACHE
    try:
        image = build(cache)
    except BuildError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    print(image.kernel, image.initrd, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
