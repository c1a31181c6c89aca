"""Block nodes as BlockdevOptions dictionaries: images, links, the node that fails reads."""

from __future__ import annotations

from typing import Any

from qemu_esd.graph import names
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
    return {"qom-type": "tls-creds-psk", "id": id, "endpoint": role, "dir": endpoint.key_dir}


def chain(name: str, layers: Chain) -> tuple[Node, ...]:
    """A chain opened read-only, bottom first, the top under `name`.

    Every format and backing is named, so that no header is trusted or probed; backings are references, because an
    inline one is mixed with the name in the header, which in our overlays cannot be opened.
    """
    top, below = layers[0], layers[1:]
    if isinstance(top, Link):
        return (link(name, top),)
    return (*_below(name, below), {**_image(name, top, file_node(top), below), "read-only": True})


def _below(name: str, layers: Chain) -> tuple[Node, ...]:
    return chain(_backing_name(name), layers) if layers else ()


def _backing_name(name: str) -> str:
    return f"{name}b"


def file_node(image: Image) -> Node:
    """The protocol node of an image, with the cache mode that its last user had."""
    return {"driver": "file", "filename": image.path, "cache": {"direct": image.direct}}


def fenced(name: str, layers: Chain, *, read_only: bool) -> tuple[Node, ...]:
    """The chain opened by a path handler so that no other process on the host can write to its top image.

    A plain open of a raw image takes no lock that keeps writers out (measured on 7.2): the filter below the format
    does, by refusing to share the write permission. While the source QEMU runs, this open fails: that is the gate.
    """
    top, below = layers[0], layers[1:]
    assert isinstance(top, Image)
    fence: Node = {
        "driver": "blkdebug",
        "image": file_node(top),
        "unshare-child-perms": ["write", "resize"],
    }
    return (*_below(name, below), {**_image(name, top, fence, below), "read-only": read_only})


def _image(name: str, image: Image, file: Node, below: Chain) -> Node:
    node: Node = {"driver": image.format, "node-name": name, "file": file}
    if image.format != "raw":
        node["backing"] = _backing_name(name) if below else None
    return node


def missing(name: str, size: int) -> Node:
    """Fails every read of data that is not local, and nothing else."""
    return {
        "driver": "blkdebug",
        "node-name": name,
        "image": {"driver": "null-co", "size": size, "read-zeroes": True},
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
