"""The block graph of a guest as it is now: what each program has open, who uses it, who reads from whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    PATH_HANDLER = "path handler"


@dataclass(frozen=True)
class Program:
    """A QEMU or a path handler. `name` is the guest, or the migration that the path handler serves.

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


def readings(programs: tuple[Program, ...]) -> tuple[Reading, ...]:
    """Who reads from whom, by the names that we give."""
    return tuple(_readings(programs))


def _readings(programs: tuple[Program, ...]) -> Iterator[Reading]:
    for number, program in enumerate(programs):
        for node in program.nodes:
            if node.driver == "nbd" and (found := _served(programs, program, node.name)):
                yield Reading(number, node.name, *found)


def _served(programs: tuple[Program, ...], reader: Program, node: str) -> tuple[int, str] | None:
    stem, _, role = node.rpartition("-")
    # A path handler asks the QEMU beside it as long as that holds the images.
    beside = reader.kind is ProgramKind.PATH_HANDLER and role == "up"
    wanted = f"{stem}-{'src' if beside else 'srv'}"
    for number, other in enumerate(programs):
        near = other.host == reader.host and other.kind is ProgramKind.GUEST
        if (near if beside else other.name == reader.reads_by) and wanted in _exports(other.users):
            return number, wanted
    return None


def _exports(users: Iterable[User]) -> frozenset[str]:
    return frozenset(user.name for user in users if user.kind is UserKind.EXPORT)
