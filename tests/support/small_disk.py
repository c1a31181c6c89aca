"""A disk of a lab host that can be full: a file system in memory, in the place of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.support.machine import Machine

_BALLAST = "ballast"


class SmallDisk:
    def __init__(self, machine: Machine, place: str) -> None:
        self._machine = machine
        self._ballast = f"{place}/{_BALLAST}"

    def fill(self) -> None:
        """Nothing more goes onto it."""
        # It ends when nothing more can be written.
        self._machine.run("dd", "if=/dev/zero", f"of={self._ballast}", "bs=64k", check=False)

    def make_room(self) -> None:
        self._machine.run("rm", self._ballast)


@contextmanager
def small_disk(machine: Machine, place: str, size: str) -> Iterator[SmallDisk]:
    """At `place` on a lab host; at the end what was there before is there again."""
    machine.run("mkdir", "-p", "-m", "700", place)
    machine.run("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "small-disk", place)
    try:
        yield SmallDisk(machine, place)
    finally:
        machine.run("umount", "--lazy", place)
