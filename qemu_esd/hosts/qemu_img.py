"""The program qemu-img on a host. Formats are always named, never probed."""

from __future__ import annotations

import json
from typing import Any

from qemu_esd.hosts.base import Host, run, shell

# An overlay opened alone would read zeros where data is missing: this name cannot be opened, so it fails instead.
# The running graph overrides it.
UNOPENABLE = "nbd+unix:///qemu-esd-incomplete?socket=/nonexistent/qemu-esd"


async def create_overlay(host: Host, path: str, size: int, options: dict[str, str]) -> None:
    """An empty qcow2 of `size` bytes whose header fails closed. `options` are qcow2 creation options."""
    words = ",".join(f"{name}={value}" for name, value in {"compat": "1.1", **options}.items())
    # -u: the backing name is not opened, which is the point of it.
    argv = ("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", UNOPENABLE)
    await shell(host, 'umask 077; exec "$@"', *argv, "-o", words, path, str(size))


async def create_raw(host: Host, path: str, size: int) -> None:
    """An empty raw image of `size` bytes that takes no space. Raises CommandFailedError if there is one."""
    await shell(host, 'umask 077; set -C; : >"$1" && exec qemu-img create -q -f raw "$1" "$2"', path, str(size))


async def forget_backing(host: Host, path: str) -> None:
    """Take the name of a backing of which nothing is needed out of the header of a qcow2 that nobody has open."""
    await run(host, ("qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", "", path))


async def virtual_size(host: Host, path: str, format: str) -> int:
    """Bytes that a guest sees. Raises CommandFailedError if the image is not of that format."""
    return int((await info(host, path, format))["virtual-size"])


async def data_bytes(host: Host, path: str) -> int:
    """Bytes of data in a qcow2 itself, in whole clusters, whatever it is over (nothing is locked or written)."""
    node = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": path}}
    done = await run(host, ("qemu-img", "map", "-U", "--output=json", f"json:{json.dumps(node)}"))
    return sum(int(row["length"]) for row in json.loads(done.stdout) if row["data"])


async def info(host: Host, path: str, format: str) -> dict[str, Any]:
    """`qemu-img info` of an image that may be in use (nothing is locked or written)."""
    done = await run(host, ("qemu-img", "info", "-U", "--output=json", "-f", format, path))
    return dict(json.loads(done.stdout))
