"""A running guest as we found it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from qemu_esd.model.disk import Disk


class Kind(StrEnum):
    """Who starts and ends the guest's QEMU: ourselves (or the user), or a libvirt."""

    BARE = "bare"
    DOMAIN = "domain"


# What lets a guest run that is paused; its name follows.
LET_RUN = {Kind.BARE: "qemu-esd vm cont", Kind.DOMAIN: "virsh resume"}


@dataclass(frozen=True)
class QemuProcess:
    """A QEMU found on a host: its process id, its name, its command line and its working folder."""

    pid: int
    name: str
    argv: tuple[str, ...]
    cwd: str


@dataclass(frozen=True)
class Upstream:
    """A host that still holds data of a guest: where, and by which migration its path handler serves."""

    host: str
    migration: str


@dataclass(frozen=True)
class Guest:
    """A running guest: process, monitor to use, versions, and its writable disks.

    `version` is QEMU's (major, minor, micro); `machine_type` the versioned one; `memory` in bytes;
    `generation` how many switchovers it has behind it; `ours` tells whether `vm run` or a migration started it;
    `migration` the last one, `upstream` the hosts it still reads from (nearest first), `left_behind` those it does not.
    """

    host: str
    process: QemuProcess
    monitor: str
    uuid: str
    version: tuple[int, int, int]
    machine_type: str
    memory: int
    generation: int
    ours: bool
    disks: tuple[Disk, ...]
    migration: str | None = None
    upstream: tuple[Upstream, ...] = ()
    left_behind: tuple[Upstream, ...] = ()
    kind: Kind = Kind.BARE

    @property
    def name(self) -> str:
        return self.process.name
