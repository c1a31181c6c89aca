"""Block nodes as BlockdevOptions dictionaries: images, links, the node that fails reads."""

from __future__ import annotations

from typing import Any

from qemu_esd.graph import names, tls
from qemu_esd.model.disk import Chain, Endpoint, Image, Link, PlainTcp, TlsTcp, UnixPath

Node = dict[str, Any]

# Masks a restart of the path handler or a short gap. While it runs, `stop` and `quit` block, so it stays short.
RECONNECT_SECONDS = 10
# Bounds the first connect, which blocks the monitor.
OPEN_SECONDS = 5

# errno of a read that misses. ENODATA cannot be mistaken for a failing disk in a log.
ENODATA = 61


def migration_of(endpoint: TlsTcp) -> str:
    """The migration whose key an endpoint uses: the key lies in its link folder."""
    return endpoint.key_dir.rstrip("/").rsplit("/", 1)[-1]


def link(name: str, to: Link, *, writable: bool = False) -> Node:
    """An NBD client."""
    node: Node = {
        "driver": "nbd",
        "node-name": name,
        "server": _server(to.endpoint),
        "export": to.export,
        "read-only": not writable,
        "reconnect-delay": RECONNECT_SECONDS,
        "open-timeout": OPEN_SECONDS,
    }
    if isinstance(to.endpoint, TlsTcp):
        node["tls-creds"] = names.credentials(migration_of(to.endpoint))
    return node


def bitmap_of(name: str, to: Link, bitmap: str) -> Node:
    """An NBD client whose block status is a dirty bitmap of the export: what is dirty is told as what is not data."""
    return {**link(name, to), "x-dirty-bitmap": f"qemu:dirty-bitmap:{bitmap}"}


def _server(endpoint: Endpoint) -> Node:
    match endpoint:
        case TlsTcp(address, port) | PlainTcp(address, port):
            return {"type": "inet", "host": address, "port": str(port)}
        case UnixPath(path):
            return {"type": "unix", "path": path}


def tls_object(endpoint: Endpoint, role: str) -> Node | None:
    """The credentials object that one end ("client" or "server") needs, for `-object` or `object-add`."""
    if not isinstance(endpoint, TlsTcp):
        return None
    id = names.credentials(migration_of(endpoint))
    return {"qom-type": "tls-creds-psk", "id": id, **tls.credentials(role, endpoint.key_dir)}


def file_node(image: Image) -> Node:
    """The protocol node of an image, with the cache mode that its last user had."""
    return {"driver": "file", "filename": image.path, "cache": {"direct": image.direct}}


def fenced(name: str, layers: Chain, *, read_only: bool) -> tuple[Node, ...]:
    """A chain opened by a path handler, bottom first, the top under `name`: nobody else on the host writes to it then.

    Every format and backing is named, so that no header is trusted or probed; backings are references, because an
    inline one is mixed with the name in the header, which in our overlays cannot be opened. A disk without local space
    is only a link here: there is nothing to be locked, it is fenced where its image is.
    """
    top, *below = (_layer(name, layers, depth) for depth in range(len(layers)))
    return (*reversed(below), {**top, "read-only": read_only})


def whole(name: str, layers: tuple[Image, ...]) -> tuple[Node, ...]:
    """Images of this host that nobody writes to, bottom first, the top under `name`; no header is trusted."""
    made = []
    for depth, image in enumerate(layers):
        node: Node = {"driver": image.format, "node-name": _layer_name(name, depth), "file": file_node(image)}
        if image.format != "raw":
            node["backing"] = _layer_name(name, depth + 1) if layers[depth + 1 :] else None
        made.append({**node, "read-only": True})
    return tuple(reversed(made))


def nested(layers: tuple[Image, ...]) -> Node:
    """The same chain in one piece, for a program that opens it beside the path handler."""
    node: Node | None = None
    for image in reversed(layers):
        node = {"driver": image.format, "file": file_node(image)} | ({} if image.format == "raw" else {"backing": node})
    assert node is not None
    return node


def _layer(name: str, layers: Chain, depth: int) -> Node:
    layer, own = layers[depth], _layer_name(name, depth)
    if isinstance(layer, Link):
        return link(own, layer)
    node: Node = {"driver": layer.format, "node-name": own, "file": _fence(layer), "read-only": True}
    if layer.format != "raw":
        node["backing"] = _layer_name(name, depth + 1) if layers[depth + 1 :] else None
    return node


def _layer_name(name: str, depth: int) -> str:
    """Numbered: node names end at 31 characters, and a chain may be deep."""
    return f"{name}{depth or ''}"


def _fence(image: Image) -> Node:
    """A file that other processes cannot open to write.

    A plain open of a raw image takes no lock that keeps writers out (measured on 7.2): this filter below the format
    does, by refusing to share the write permission. While the source QEMU runs, this open fails: that is the gate.
    """
    return {"driver": "blkdebug", "image": file_node(image), "unshare-child-perms": ["write", "resize"]}


def missing(name: str, size: int) -> Node:
    """Fails every read of data that is not local, and nothing else."""
    return {
        "driver": "blkdebug",
        "node-name": name,
        "image": {"driver": "null-co", "size": size},
        "inject-error": [{"event": "none", "iotype": "read", "errno": ENODATA}],
    }


def remote_only(suid: str, to: Link) -> tuple[Node, ...]:
    """A disk without local space while it waits for the guest: a writable face over a link that reads.

    At the handover the raw node's file is replaced by a link that writes.
    """
    return (link(names.remote(suid), to), face(suid, names.remote(suid)))


def face(suid: str, below: str) -> Node:
    """The writable node that the guest's disk is on when it has no local space."""
    return {"driver": "raw", "node-name": names.served(suid), "file": below, "read-only": False}
