"""The path handler of a device that looks shared: what it has open on each host, by the device's record. Pure.

The *face* answers on the local socket; the *gate* lets other hosts in, over TLS. Two daemons, because one has one NBD
server, which has TLS for all or for none.

authority   guest ──unix──▶ srv ▶ [cor ▶] ovl, fenced     gate: TLS ──▶ NBD client ──unix──▶ srv
elsewhere   guest ──unix──▶ srv ▶ NBD client ──TLS──▶ the authority's gate
behind      as elsewhere, and   ovl (read-only) ◀──unix── gate ◀──TLS── the overlay of the host after it
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from qemu_esd.graph import names, nodes
from qemu_esd.graph.handlers import HANDLERS
from qemu_esd.model import device
from qemu_esd.model.device import Behind, DeviceRecord, Seat
from qemu_esd.model.disk import Chain, Link, TlsTcp, UnixPath, images, link_of
from qemu_esd.model.policy import Handler

Node = dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """What a daemon has: nodes bottom first, and exports. `late` are those that need another host to answer: they are
    opened when it does, so that two hosts which need each other can start in any order."""

    nodes: tuple[Node, ...] = ()
    exports: tuple[Node, ...] = ()
    late_nodes: tuple[Node, ...] = ()
    late_exports: tuple[Node, ...] = ()

    @property
    def all_nodes(self) -> tuple[Node, ...]:
        return (*self.nodes, *self.late_nodes)

    @property
    def all_exports(self) -> tuple[Node, ...]:
        return (*self.exports, *self.late_exports)


def face(record: DeviceRecord, seat: Seat) -> Graph:
    """Where a guest of that host finds the device."""
    if seat.host == record.authority:
        return _authority(record)
    forwarded = _forwarded(record, seat)
    kept = record.kept_on(seat.host)
    if kept is None:
        return forwarded
    return Graph(
        _kept_nodes(record, kept),
        (_old(record.suid, kept.export),),
        forwarded.late_nodes,
        forwarded.late_exports,
    )


def _kept_nodes(record: DeviceRecord, kept: Behind) -> tuple[Node, ...]:
    """What a former authority has, as it had it; but nothing is written to it any more, or kept of what is read."""
    suid, link = record.suid, link_of(kept.chain)
    if link is None:
        return image_nodes(suid, kept.chain, read_only=True)
    *below, top = HANDLERS[Handler.REDIRECT].nodes_of(suid, images(kept.chain)[0], link, record.size)
    return (*below, {**top, "read-only": True})


def _authority(record: DeviceRecord) -> Graph:
    suid, link = record.suid, link_of(record.chain)
    exports = []
    # While the authority is about to leave nobody here may write any more.
    if record.move is None:
        # A raw image has no metadata in the daemon's memory.
        exports.append(_local(suid, writethrough=record.top.format != "raw"))
    if len(record.seats) > 1:
        exports.append(_export(suid, "gate", names.served(suid), gate_name(suid), writable=True, writethrough=True))
    if record.move is not None:
        exports.append(_old(suid, record.move.export))
    if link is None or record.handler is None:
        return Graph(
            (*image_nodes(suid, record.chain, read_only=False), _served(suid, names.overlay(suid))), (*exports,)
        )
    handler = HANDLERS[record.handler]
    made = handler.nodes_of(suid, record.top, link, record.size)
    exports += _windows(record, handler.top(suid))
    return Graph((*made, _served(suid, handler.top(suid))), (*exports,))


def _windows(record: DeviceRecord, top: str) -> Iterator[Node]:
    """By which it is seen what is here, and brought here."""
    suid = record.suid
    yield {**_export(suid, "map", names.overlay(suid), f"{suid}.map", writable=False), "allocation-depth": True}
    if top == names.copy_on_read(suid):
        yield _export(suid, "fill", top, f"{suid}.fill", writable=False)


def _forwarded(record: DeviceRecord, seat: Seat) -> Graph:
    there, suid = record.seat(record.authority), record.suid
    to = Link(gate_of(there, seat, suid), seat.export)
    name = forwarding(record)
    return Graph(
        late_nodes=(nodes.link(name, to, writable=True), _served(suid, name)),
        late_exports=(_local(suid, writethrough=True),),
    )


def forwarding(record: DeviceRecord) -> str:
    """The NBD client of the authority. Its name has a number: one that leads to a former authority is another node."""
    return names.node(record.suid, f"rw{record.term % 10000}")


def gate_of(there: Seat, here: Seat, suid: str) -> TlsTcp:
    """The gate of the host `there`, for the host `here`."""
    return TlsTcp(there.site.address, there.port, device.state_folder(here.paths, suid))


def image_nodes(suid: str, chain: Chain, *, read_only: bool) -> tuple[Node, ...]:
    """A chain of images that nobody else on the host may write to, its top named as the member that takes writes."""
    *below, top = nodes.fenced(names.overlay(suid), chain, read_only=read_only)
    return (*below, {**top, "file": {**top["file"], "node-name": names.file(suid)}})


def reopened(node: Node) -> Node:
    """The arguments by which a node that is open becomes that: its file is named and not described."""
    file = node.get("file")
    return {**node, "file": file["node-name"]} if isinstance(file, dict) else node


def _served(suid: str, below: str) -> Node:
    return {"driver": "raw", "node-name": names.served(suid), "file": below, "read-only": False}


def gate_name(suid: str) -> str:
    return f"{suid}.gate"


def _local(suid: str, *, writethrough: bool) -> Node:
    """What guests use. The daemon may be killed and started again, and they are not told: so what it has acknowledged
    must not be in its own memory only, where a qcow2 keeps metadata. A host that forwards says so beforehand, because
    its guests stay connected when it gets an overlay (measured without: 17 blocks of a guest lost by a kill)."""
    return _export(suid, "local", names.served(suid), suid, writable=True, writethrough=writethrough)


def _old(suid: str, name: str) -> Node:
    return _export(suid, "old", names.overlay(suid), name, writable=False)


def _export(suid: str, role: str, node: str, name: str, *, writable: bool, writethrough: bool = False) -> Node:
    return {
        "type": "nbd",
        "id": names.export_id(suid, role),
        "node-name": node,
        "name": name,
        "writable": writable,
        "writethrough": writethrough,
    }


def gate(record: DeviceRecord, seat: Seat) -> Graph | None:
    """By which other hosts reach the data of this one; None where there is nothing to be reached."""
    suid, face_socket = record.suid, UnixPath(device.socket(seat.paths, record.suid))
    made: list[Node] = []
    exports: list[Node] = []
    if seat.host == record.authority and len(record.seats) > 1:
        name = names.node(suid, "gate")
        made.append(nodes.link(name, Link(face_socket, gate_name(suid)), writable=True))
        exports += [_let_in(name, other.export, writable=True) for other in _writers(record, seat)]
    if old := old_export(record, seat):
        name = names.node(suid, "old")
        made.append(nodes.link(name, Link(face_socket, old)))
        exports.append(_let_in(name, old, writable=False))
    return Graph((*made,), (*exports,)) if made else None


def old_export(record: DeviceRecord, seat: Seat) -> str | None:
    """The name by which this host is read by the one after it, if it is."""
    if record.move is not None and seat.host == record.authority:
        return record.move.export
    kept = record.kept_on(seat.host)
    return kept.export if kept else None


def _writers(record: DeviceRecord, seat: Seat) -> list[Seat]:
    """The other hosts that may write through this one: while the authority moves, only the one to which it goes."""
    others = [other for other in record.seats if other.host != seat.host]
    return [other for other in others if record.move is None or other.host == record.move.target]


def _let_in(node: str, name: str, *, writable: bool) -> Node:
    return {"type": "nbd", "id": name, "node-name": node, "name": name, "writable": writable, "writethrough": False}
