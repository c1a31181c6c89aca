"""The disk of these tests: a raw base with data and holes, and a qcow2 overlay with writes of its own."""

from __future__ import annotations

import json
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

KIB = 1 << 10
MIB = 1 << 20
SIZE = 16 * MIB
CLUSTER = 64 * KIB
BASE_DATA = (
    (1 * MIB, 2 * MIB),
    (6 * MIB + 20 * KIB, 8 * KIB),  # within one cluster of the overlay
    (8 * MIB, 1 * MIB),
    (SIZE - 64 * KIB, 64 * KIB),
)
LOCAL_DATA = ((4 * MIB, 64 * KIB, 0xA1), (8 * MIB, 64 * KIB, 0xA2))


@dataclass(frozen=True)
class Images:
    base: Path
    overlay: Path
    expected: Path  # what the guest must read, whatever was copied


def make_images(directory: Path) -> Images:
    images = Images(directory / "base.raw", directory / "overlay.qcow2", directory / "expected.raw")
    noise = random.Random(7)
    _write(images.base, {offset: noise.randbytes(length) for offset, length in BASE_DATA})
    content = images.base.read_bytes()
    _write(images.expected, {offset: content[offset : offset + length] for offset, length in BASE_DATA})
    _write(images.expected, {offset: bytes([byte]) * length for offset, length, byte in LOCAL_DATA})
    create_qcow2(images.overlay, SIZE, "-b", str(images.base), "-F", "raw")
    for offset, length, byte in LOCAL_DATA:
        run("qemu-io", "-f", "qcow2", "-c", f"write -P {byte} {offset} {length}", str(images.overlay))
    return images


def create_qcow2(path: Path, size: int, *options: str) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), str(size))


def image_map(path: Path) -> list[dict[str, object]]:
    """The map of an image that nobody uses, as qemu-img sees it."""
    entries: list[dict[str, object]] = json.loads(run("qemu-img", "map", "--output=json", str(path)))
    return entries


def same_content(overlay: Path, expected: Path) -> bool:
    command = ["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", str(overlay), str(expected)]
    return subprocess.run(command, check=False).returncode == 0


def forget_backing(overlay: Path) -> None:
    """Cut the overlay off from its base: from here on it has only what is in it."""
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", str(overlay))


def run(*command: str, stdin: str = "") -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, input=stdin).stdout


def _write(path: Path, pieces: dict[int, bytes]) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(SIZE)
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)
