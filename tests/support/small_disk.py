"""A disk that can be full: a file system in memory in the place of a folder, of a lab host or of this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.support.machine import Machine

_BALLAST = "ballast"
# Runs a program where the disk is; True if it has ended with 0.
Run = Callable[..., bool]


class SmallDisk:
    def __init__(self, run: Run, place: str) -> None:
        self._run = run
        self._ballast = f"{place}/{_BALLAST}"

    def fill(self) -> None:
        """Nothing more goes onto it."""
        # It ends when nothing more can be written.
        assert not self._run("dd", "if=/dev/zero", f"of={self._ballast}", "bs=64k")

    def leave(self, size: str) -> None:
        """Room for so much, on one that is full."""
        assert self._run("truncate", "-s", f"-{size}", self._ballast)

    def make_room(self) -> None:
        assert self._run("rm", self._ballast)


@contextmanager
def small_disk(machine: Machine, place: str, size: str) -> Iterator[SmallDisk]:
    """At `place` on a lab host; at the end what was there before is there again."""

    def run(*argv: str) -> bool:
        return machine.run(*argv, check=False).returncode == 0

    with _mounted(run, place, size) as disk:
        yield disk


@contextmanager
def small_disk_here(place: Path, size: str) -> Iterator[SmallDisk]:
    """On this machine."""

    def run(*argv: str) -> bool:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    with _mounted(run, str(place), size) as disk:
        yield disk


@contextmanager
def _mounted(run: Run, place: str, size: str) -> Iterator[SmallDisk]:
    assert run("mkdir", "-p", "-m", "700", place)
    assert run("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "small-disk", place)
    try:
        yield SmallDisk(run, place)
    finally:
        run("umount", "--lazy", place)
