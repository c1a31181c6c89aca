"""Nodes with what is below them, and who uses them, as a QEMU or a storage daemon tells them. Nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qemu_esd.model.block_graph import BlockNode, Edge, User, UserKind
from qemu_esd.qmp import care, jobs
from qemu_esd.qmp.session import Session

# Only these have a path for a file name; that of an NBD client has the name of an export in it, which is a secret.
_FILES = ("file", "host_device")
_NODES = "query-named-block-nodes"
# A job names the node that it began with, besides those that it works on.
_BEGAN_WITH = "main node"


@dataclass(frozen=True)
class Drawn:
    """All nodes of one program, the edges between them, and who uses them from above."""

    nodes: tuple[BlockNode, ...]
    edges: tuple[Edge, ...]
    users: tuple[User, ...]


async def draw(session: Session, *, has_devices: bool) -> Drawn:
    """The graph of a program; a storage daemon has no devices.

    By a command that QEMU calls unstable, which every version since 4.0 has: no other tells all edges. Raises
    RefusedError where a question would end it.
    """
    await care.check_harmless(session, _NODES)
    graph = await session.execute("x-debug-query-block-graph")
    rows = await session.execute(_NODES, flat=True)
    edges = _edges(graph)
    devices = _devices(await session.execute("query-block")) if has_devices else ()
    exports = [_export(row) for row in await session.execute("query-block-exports")]
    return Drawn(tuple(map(_node, rows)), edges[0], (*devices, *exports, *await _jobs(session, edges[1])))


def _node(row: dict[str, Any]) -> BlockNode:
    driver = str(row["drv"])
    return BlockNode(str(row["node-name"]), driver, str(row["file"]) if driver in _FILES else None, bool(row["ro"]))


def _edges(graph: dict[str, Any]) -> tuple[tuple[Edge, ...], tuple[Edge, ...]]:
    """Those between nodes, and those from jobs to nodes."""
    named = {row["id"]: (row["type"], str(row["name"])) for row in graph["nodes"]}
    found: dict[str, list[Edge]] = {"block-driver": [], "block-job": []}
    for row in graph["edges"]:
        kind, parent = named[row["parent"]]
        if kind in found:
            found[kind].append(Edge(parent, str(row["name"]), named[row["child"]][1]))
    return tuple(found["block-driver"]), tuple(found["block-job"])


def _devices(rows: list[dict[str, Any]]) -> tuple[User, ...]:
    """Those with something in them, by the last part of their path that somebody has chosen."""
    return tuple(
        User(UserKind.DEVICE, _device(row), (str(row["inserted"]["node-name"]),), _trouble(row))
        for row in rows
        if row.get("inserted") and (row.get("qdev") or row.get("device"))
    )


def _device(row: dict[str, Any]) -> str:
    return str(row.get("qdev") or row["device"]).removeprefix("/machine/peripheral/").removesuffix("/virtio-backend")


def _trouble(row: dict[str, Any]) -> str | None:
    status = str(row.get("io-status", "ok"))
    return None if status == "ok" else status


def _export(row: dict[str, Any]) -> User:
    return User(UserKind.EXPORT, str(row["id"]), (str(row["node-name"]),), "ending" if row["shutting-down"] else None)


async def _jobs(session: Session, edges: tuple[Edge, ...]) -> list[User]:
    users = []
    for job in (await jobs.running(session)).values():
        on = tuple(edge.child for edge in edges if edge.parent == job.id and edge.role != _BEGAN_WITH)
        users.append(User(UserKind.JOB, job.id, on, f"{job.type}, {job.status}", job.done, job.total))
    return users
