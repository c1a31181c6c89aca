"""Disks for a guest: made on a host with a pattern that tells every sector's place, and described to the guest."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import pattern
from images.pattern import MIB, Fill
from tests.integration.support.machine import SRV, Machine


@dataclass(frozen=True)
class Drive:
    """One disk. `file` below /srv says the format by its suffix; `chain` is how many backing files a qcow2 has.

    `words` are more of what `--disk` takes; `seen` the name that the guest gives it.
    """

    id: str
    seed: int
    file: str = ""
    size: int = 32 * MIB
    fill: Fill = "full"
    chain: int = 0
    words: str = ""
    serial: str = ""
    seen: str = ""

    @property
    def name(self) -> str:
        return self.file or f"{self.id}.raw"

    @property
    def guest_name(self) -> str:
        return self.seen or self.id

    @property
    def path(self) -> str:
        """On the host."""
        return f"{SRV}/{self.name}"

    @property
    def format(self) -> str:
        return "qcow2" if self.name.endswith(".qcow2") else "raw"

    @property
    def text(self) -> str:
        """As for --disk."""
        words = [_doubled(self.path), f"id={self.id}", f"format={self.format}", self.words]
        if self.serial:
            words.append(f"serial={_doubled(self.serial)}")
        return ",".join(word for word in words if word)

    @property
    def option(self) -> str:
        """For the guest's kernel."""
        return f"esd.disk={self.guest_name}:seed={self.seed},fill={self.fill}"

    def source(self, machine: Machine, migration: str = "") -> dict[str, Any]:
        """The image where the guest came from, as a node; with `migration`, after it has been put aside."""
        path = machine.real(f"{self.path}.moved-{migration}" if migration else self.path)
        return {"driver": self.format, "file": {"driver": "file", "filename": str(path)}}

    def expected(self, offset: int, length: int) -> bytes:
        return pattern.expected(self.seed, self.fill, offset, length)

    def make(self, machine: Machine) -> Path:
        """Make the image on the host; returns the machine's path of it."""
        path = machine.real(self.path)
        if self.format == "raw":
            pattern.fill(path, self.size, self.seed, self.fill)
            return path
        plain = path.with_name(f"{path.name}.plain")
        pattern.fill(plain, self.size, self.seed, self.fill)
        if self.chain:
            _layers(machine, self, plain)
        else:
            tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(plain), str(path))
        plain.unlink()
        return path


def _doubled(text: str) -> str:
    """A comma that is meant."""
    return text.replace(",", ",,")


def _layers(machine: Machine, drive: Drive, plain: Path) -> None:
    """A raw base and qcow2 layers over it. Each layer has its share of the right data; those below have others'."""
    share = drive.size // (drive.chain + 1) // MIB * MIB
    base = f"{drive.path}.base"
    pattern.fill(machine.real(base), drive.size, drive.seed + 1000, "full")
    _put(plain, machine.real(base), "raw", 0, share)
    below, format = base, "raw"
    for number in range(1, drive.chain + 1):
        layer = drive.path if number == drive.chain else f"{drive.path}.{number}"
        # Backing names as the host sees them: relative ones, because the host's /srv is elsewhere on the machine.
        name = below.removeprefix(f"{SRV}/")
        tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", name, "-F", format, str(machine.real(layer)))
        start = number * share
        length = drive.size - start if number == drive.chain else share
        _put(plain, machine.real(layer), "qcow2", start, length)
        below, format = layer, "qcow2"


def _put(plain: Path, image: Path, format: str, start: int, length: int) -> None:
    """Copy a range, zeroes too: they hide what a layer below has there."""
    window = f"driver=raw,offset={start},size={length}"
    source = f"{window},file.driver=file,file.filename={plain}"
    into = f"{window},file.driver={format},file.file.driver=file,file.file.filename={image}"
    tool("qemu-img", "convert", "-n", "--image-opts", source, "--target-image-opts", into)


def tool(*argv: str) -> str:
    """What a program of the machine prints; it must end with 0."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout
