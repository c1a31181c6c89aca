"""What `status`, `map` and `migrate` show: the JSON fields of the contract. docs/json.md tells of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qemu_esd.model.pace import Bandwidth
from qemu_esd.model.vm import Kind
from qemu_esd.nbd import Residency


@dataclass(frozen=True)
class DiskView:
    """One disk. Bytes of virtual size, of data here, of data still elsewhere (None: unknown); holes are neither."""

    disk: str
    suid: str
    handler: str
    write_policy: str
    virtual_bytes: int
    local_bytes: int | None
    remote_bytes: int | None
    needs_source: bool


@dataclass(frozen=True)
class DiskMap:
    """Where the bytes of a disk are; `residency` None: all in one place, or not to be asked (`view` tells)."""

    view: DiskView
    residency: Residency | None


@dataclass(frozen=True)
class JobView:
    """The background move of one disk: bytes, and bytes per second; `limit` is the most it may have now, None: any."""

    disk: str
    done: int
    total: int
    rate: int
    limit: int | None = None


@dataclass(frozen=True)
class HostView:
    """A host that has to do with a guest. `role`: it "runs" the guest, "serves" data of it, or "keeps" a former image.

    `migration` is the one that took the guest away from there. `transport` ("tls", "tcp", "ssh") and `address` (with a
    port; a socket for ssh) are those by which the guest's host reads from it, where that is told there.
    """

    host: str
    role: str
    migration: str | None = None
    transport: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class JournalView:
    """The journal of the guest's last migration on this controller. `errors` are the last that were said of it."""

    id: str
    state: str
    at_work: bool
    errors: tuple[str, ...]


@dataclass(frozen=True)
class MemoryView:
    """A guest's memory while it moves: bytes, how fast the guest writes to it (bytes/s), and for how long the guest
    would stand still now; None for what QEMU does not know yet."""

    done: int
    total: int
    dirty_rate: int | None
    downtime_ms: int | None


@dataclass(frozen=True)
class MigrationView:
    """The outcome of one `migrate`. Times in ms, by the controller's clock; None for what did not come to pass."""

    id: str
    vm: str
    source: str
    target: str
    committed: bool
    state: str
    downtime_ms: float | None
    resumed_after_ms: float | None
    total_ms: float | None
    disks: tuple[DiskView, ...]


@dataclass(frozen=True)
class GuestView:
    """A guest as it is now, with its last migration (`id` None: it has not moved, or nobody knows).

    `run_state` is QEMU's word; `link` is "none", "up" or "down", the latter for `link_down_s` seconds, if its watch has
    noticed; then `waiting_requests` is how many requests its disks have not answered, where QEMU tells.
    `link_received_bytes` came over the link's present connections (None: it is no TCP). `job` is set
    while data is being moved; `bandwidth` is what it may take: bytes/s, "auto", or None. `upstream` are the hosts it
    still reads from, `left_behind` those that keep their member aside; `problem` is what is wrong.
    `io_errors` are the disks that have stopped it, each with QEMU's word for why: "nospace", or "failed".
    `hosts` are those that have to do with it, `journal` what this controller has of its last migration, `memory`
    is set while its memory moves, and `kind` is None of one that could not be looked at.
    """

    id: str | None
    vm: str
    source: str | None
    target: str
    committed: bool
    state: str
    downtime_ms: float | None
    resumed_after_ms: float | None
    total_ms: float | None
    disks: tuple[DiskView, ...]
    host: str
    link: str
    job: JobView | None
    run_state: str | None = None
    generation: int = 0
    upstream: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    problem: str | None = None
    link_down_s: int | None = None
    link_received_bytes: int | None = None
    io_errors: Mapping[str, str] = field(default_factory=dict)
    waiting_requests: int | None = None
    bandwidth: Bandwidth = None
    hosts: tuple[HostView, ...] = ()
    journal: JournalView | None = None
    memory: MemoryView | None = None
    kind: Kind | None = None


def of_absent(vm: str, host: str, state: str, problem: str | None) -> GuestView:
    """A guest of which no more is known than its name and where it was."""
    return GuestView(None, vm, None, host, False, state, None, None, None, (), host, "none", None, problem=problem)
