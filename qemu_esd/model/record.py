"""What is written down: the journal's lines on the controller, the guest's record and the link's record on hosts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from qemu_esd.model.disk import Chain, Image, images
from qemu_esd.model.pace import Bandwidth
from qemu_esd.model.plan import Plan
from qemu_esd.model.policy import Handler
from qemu_esd.model.resource import Resource
from qemu_esd.model.vm import Kind, Upstream


class State(StrEnum):
    """How far a migration got. `docs/recovery.md` says for each what a kill means and what comes next."""

    PLANNED = "planned"
    PREPARING = "preparing"
    SWITCHING = "switching"
    COMMITTED = "committed"
    RUNNING = "running"
    HANDED_OVER = "handed-over"
    SETTLING = "settling"
    SETTLED = "settled"
    RELEASED = "released"
    ROLLED_BACK = "rolled-back"
    DISCARDING = "discarding"
    DISCARDED = "discarded"

    @property
    def committed(self) -> bool:
        """True from the point of no return on, unless the operator has given up what the target had."""
        before = (State.PLANNED, State.PREPARING, State.SWITCHING)
        return self not in (*before, State.ROLLED_BACK, State.DISCARDING, State.DISCARDED)

    @property
    def leaves_source_whole(self) -> bool:
        """Committed, and the source still keeps its images as they were at the switchover."""
        return self in (State.COMMITTED, State.RUNNING, State.HANDED_OVER, State.SETTLING)


@dataclass(frozen=True)
class Planned:
    """First line of a journal: the whole plan."""

    plan: Plan


@dataclass(frozen=True)
class Held:
    """Written before the resource is made, so a kill right after this line leaves nothing unknown."""

    resource: Resource


@dataclass(frozen=True)
class Released:
    """Written after the resource is gone (gone already counts)."""

    resource: Resource


@dataclass(frozen=True)
class Entered:
    """The migration enters `state`; written before the first act of that state."""

    state: State


@dataclass(frozen=True)
class Measured:
    """A figure of this migration (milliseconds), for reports."""

    name: str
    ms: float


Entry = Planned | Held | Released | Entered | Measured


@dataclass(frozen=True)
class DiskRecord:
    """A disk as the guest's record on its host tells it. `handler` None: a plain local disk, nothing is absent.

    `base` are whole images of this host below the overlays in `chain`, top first, where the guest has come home.
    """

    id: str
    suid: str
    size: int
    data: int
    chain: Chain
    handler: Handler | None = None
    base: tuple[Image, ...] = ()

    @property
    def level(self) -> int:
        """Which of the overlays on this host is the top one, from 0."""
        return max(len(images(self.chain)) - 1, 0)


@dataclass(frozen=True)
class GuestRecord:
    """The guest on this host: enough for a controller that has never seen it. `moved_to` is set once it left.

    `upstream` lists the hosts that still hold its data, nearest first; `bandwidth` limits the background move, bytes/s;
    `argv` is how its QEMU was started here.
    """

    name: str
    uuid: str
    generation: int
    disks: tuple[DiskRecord, ...]
    migration: str | None = None
    upstream: tuple[Upstream, ...] = ()
    left_behind: tuple[Upstream, ...] = ()
    bandwidth: Bandwidth = None
    moved_to: str | None = None
    argv: tuple[str, ...] = ()
    kind: Kind = Kind.BARE


@dataclass(frozen=True)
class LinkMember:
    """One device that a path handler serves: its image chain, its export name, and whether writes are taken.

    `stamps` say what its images are, top first, as `stat` tells it; none before the handover.
    """

    suid: str
    chain: Chain
    export: str
    size: int
    writable: bool = False
    stamps: tuple[str, ...] = ()


@dataclass(frozen=True)
class LinkRecord:
    """The source's end of a migration, in its link folder: what is served to whom, and what was put aside.

    `upstream` is the migration by whose link this host itself reads what it does not have.
    """

    migration: str
    vm: str
    generation: int
    target: str
    members: tuple[LinkMember, ...]
    upstream: str | None = None
    put_aside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Begun:
    """On both hosts until a migration has come to its end: its plan, and where its journal is (USER@MACHINE:FOLDER)."""

    controller: str
    plan: Plan
