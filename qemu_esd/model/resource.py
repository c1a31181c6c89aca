"""What outlives our process. Each held thing is a fact; `release` in phases/hold.py is one match over them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Folder:
    """A folder that is ours alone, with all that is in it."""

    host: str
    path: str


@dataclass(frozen=True)
class Room:
    """A folder that we may have made, and that may hold what is to stay: removed only if it is empty."""

    host: str
    path: str


@dataclass(frozen=True)
class File:
    """One file that is ours (an overlay)."""

    host: str
    path: str


@dataclass(frozen=True)
class Unit:
    """A supervised process: a QEMU, a path handler, a tunnel, a watch."""

    host: str
    name: str


@dataclass(frozen=True)
class NbdServer:
    """The NBD server inside a QEMU, with every export on it. `monitor` is the QMP socket."""

    host: str
    monitor: str


@dataclass(frozen=True)
class QemuObject:
    """An object (TLS credentials) inside a QEMU."""

    host: str
    monitor: str
    id: str


@dataclass(frozen=True)
class Export:
    """One export of an NBD server that was there before us."""

    host: str
    monitor: str
    id: str


@dataclass(frozen=True)
class MigrationSettings:
    """Capabilities and parameters of a source QEMU as they were before us, to be put back."""

    host: str
    monitor: str
    capabilities: tuple[tuple[str, bool], ...]
    tls_creds: str
    tls_hostname: str
    max_bandwidth: int
    downtime_limit: int


@dataclass(frozen=True)
class AuthorizedKey:
    """A line in ~/.ssh/authorized_keys of a host, found again by its comment."""

    host: str
    comment: str


@dataclass(frozen=True)
class Outgoing:
    """The stream out of a source QEMU: to undo it, the target and the path handler end first, then the source runs."""

    host: str
    monitor: str
    target: Unit
    path_handler: Unit


@dataclass(frozen=True)
class IncomingDomain:
    """A domain of libvirt that comes to `host`, or has come there. To undo it: it ends there, with its definition."""

    host: str
    vm: str
    uuid: str


@dataclass(frozen=True)
class OutgoingDomain:
    """A domain that leaves `host`: to undo it, the target's end first, then the path handler, then the source runs."""

    host: str
    vm: str
    uuid: str
    target: IncomingDomain
    path_handler: Unit


Resource = (
    Folder
    | Room
    | File
    | Unit
    | NbdServer
    | Export
    | QemuObject
    | MigrationSettings
    | AuthorizedKey
    | Outgoing
    | IncomingDomain
    | OutgoingDomain
)
