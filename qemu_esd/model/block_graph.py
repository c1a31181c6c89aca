"""The block graph of a guest as it is now: what each program has open, who uses it, who reads from whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class BlockNode:
    """A node of QEMU's, by its name and driver. `file` is the path of what it opened on its host, if it is a file."""

    name: str
    driver: str
    file: str | None
    read_only: bool


@dataclass(frozen=True)
class Edge:
    """`parent` has `child` as its "file", "backing", "target" …: QEMU's word is `role`."""

    parent: str
    role: str
    child: str


class UserKind(StrEnum):
    """Who uses nodes from above."""

    DEVICE = "device"
    EXPORT = "export"
    JOB = "job"


@dataclass(frozen=True)
class User:
    """A device of the guest, an export, or a job (then `done` of `total` bytes, and the state it is in)."""

    kind: UserKind
    name: str
    on: tuple[str, ...]
    state: str | None = None
    done: int | None = None
    total: int | None = None


class ProgramKind(StrEnum):
    """What a program is to the guest."""

    GUEST = "guest"
    RELAY = "relay"
    PATH_HANDLER = "path handler"


@dataclass(frozen=True)
class Program:
    """A QEMU or a storage daemon. `name` is the guest, or the migration that the relay or path handler serves.

    `reads_by` is the migration by whose link it reads what it does not have. `problem`: why it could not be asked.
    """

    host: str
    kind: ProgramKind
    name: str
    state: str | None = None
    reads_by: str | None = None
    nodes: tuple[BlockNode, ...] = ()
    edges: tuple[Edge, ...] = ()
    users: tuple[User, ...] = ()
    problem: str | None = None

    def node(self, name: str) -> BlockNode | None:
        return next((node for node in self.nodes if node.name == name), None)

    def children(self, name: str) -> tuple[Edge, ...]:
        return tuple(edge for edge in self.edges if edge.parent == name)

    def below(self, name: str) -> frozenset[str]:
        """All nodes below a node."""
        children = [edge.child for edge in self.children(name)]
        return frozenset(children).union(*map(self.below, children))

    def roots(self) -> tuple[str, ...]:
        """Nodes that nobody is above of: neither a user nor another node."""
        below = {edge.child for edge in self.edges} | {name for user in self.users for name in user.on}
        return tuple(node.name for node in self.nodes if node.name not in below)


@dataclass(frozen=True)
class Reading:
    """The NBD client `node` of one program reads from the `export` of another; both by their places in the graph."""

    program: int
    node: str
    of: int
    export: str


@dataclass(frozen=True)
class BlockGraph:
    """All programs that have to do with a guest, the one that it runs in first."""

    vm: str
    programs: tuple[Program, ...]
    readings: tuple[Reading, ...]


# The exports of relays, by host and path of the overlays whose data they are.
Relayed = Mapping[tuple[str, str], str]


def readings(programs: tuple[Program, ...], relayed: Relayed | None = None) -> tuple[Reading, ...]:
    """Who reads from whom, by the names that we give; libvirt's clients, by the overlays that are above them."""
    return tuple(_readings(programs, relayed or {}))


def _readings(programs: tuple[Program, ...], relayed: Relayed) -> Iterator[Reading]:
    for number, program in enumerate(programs):
        by_relay = _clients_of_relay(program, relayed)
        for node in program.nodes:
            if node.driver != "nbd":
                continue
            kind, export = by_relay.get(node.name) or _asked(program, node.name)
            served = _serving(programs, program, kind, export)
            if served is not None:
                yield Reading(number, node.name, served, export)


def _asked(reader: Program, node: str) -> tuple[ProgramKind, str]:
    """What kind of program a client of ours asks, and for which export."""
    stem, _, role = node.rpartition("-")
    # A path handler asks the QEMU beside it as long as that holds the images.
    if reader.kind is ProgramKind.PATH_HANDLER and role == "up":
        return ProgramKind.GUEST, f"{stem}-src"
    return ProgramKind.PATH_HANDLER, f"{stem}-srv"


def _clients_of_relay(program: Program, relayed: Relayed) -> dict[str, tuple[ProgramKind, str]]:
    """Those of a domain's QEMU."""
    found = dict[str, tuple[ProgramKind, str]]()
    for file in program.nodes if program.kind is ProgramKind.GUEST else ():
        export = relayed.get((program.host, file.file or ""))
        if export is not None:
            overlays = (edge.parent for edge in program.edges if edge.child == file.name)
            found |= {name: (ProgramKind.RELAY, export) for overlay in overlays for name in program.below(overlay)}
    return found


def _serving(programs: tuple[Program, ...], reader: Program, kind: ProgramKind, export: str) -> int | None:
    for number, other in enumerate(programs):
        is_it = other.host == reader.host if kind is ProgramKind.GUEST else other.name == reader.reads_by
        if other.kind is kind and is_it and export in _exports(other.users):
            return number
    return None


def _exports(users: Iterable[User]) -> frozenset[str]:
    return frozenset(user.name for user in users if user.kind is UserKind.EXPORT)
