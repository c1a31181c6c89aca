"""A migration as decided before anything is touched."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from qemu_esd.errors import EsdError
from qemu_esd.model.disk import Disk, Image, Link
from qemu_esd.model.host import HostPaths
from qemu_esd.model.pace import Bandwidth
from qemu_esd.model.policy import Handler, ReadErrors
from qemu_esd.model.vm import Guest


class Transport(StrEnum):
    """How two hosts talk: TLS over TCP with a key per migration, one supervised ssh, or (loudly) plain TCP."""

    TLS = "tls"
    SSH = "ssh"
    PLAINTEXT = "plaintext"


@dataclass(frozen=True)
class Problem:
    """Something that stands in the way: where, what, and what mends it."""

    host: str
    what: str
    hint: str


def problem_of(error: EsdError, host: str) -> Problem:
    """What an error says as a problem: of `host`, where the error names none."""
    return Problem(error.host or host, error.what, error.hint or "")


@dataclass(frozen=True)
class DiskPlan:
    """One disk of the migration.

    `member` is the image on the target (None: no local space); `link` how the target reaches the source's data;
    `export` the random name that both ends use.
    """

    disk: Disk
    handler: Handler
    export: str
    link: Link
    member: Image | None


@dataclass(frozen=True)
class Site:
    """One end of a migration: the host, its folders, and the address by which the other end reaches it."""

    host: str
    paths: HostPaths
    address: str


@dataclass(frozen=True)
class DomainTarget:
    """What there is to know of a domain of libvirt besides. `persistent`: it has a definition, which follows it.

    `owner_here` and `owner_there` are the users of its QEMUs, as "uid:gid"; `read_errors` is what its disks do on them.
    """

    persistent: bool
    owner_here: str
    owner_there: str
    read_errors: ReadErrors


@dataclass(frozen=True)
class Plan:
    """Everything that the phases need to know. `bandwidth` (bytes/s) and `downtime_ms` limit QEMU; None: its own.

    `target_argv` starts a bare guest's QEMU on the target; `domain` is there for a domain of libvirt instead.
    """

    id: str
    guest: Guest
    source: Site
    target: Site
    transport: Transport
    nbd_port: int
    ram_port: int
    generation: int
    disks: tuple[DiskPlan, ...]
    target_argv: tuple[str, ...]
    bandwidth: Bandwidth = None
    downtime_ms: int | None = None
    domain: DomainTarget | None = None

    @property
    def vm(self) -> str:
        return self.guest.name
