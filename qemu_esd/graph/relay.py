"""The command line of a relay: the storage daemon on the target by which the QEMU of a domain reads from the source.

domain's QEMU ──unix──▶ export ▶ served (raw) ▶ NBD client ──TLS──▶ path handler

The link's address, key and reconnect-delay are in it, so that libvirt has to know none of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from qemu_esd.graph import names, nodes
from qemu_esd.graph.path_handler import observer
from qemu_esd.model.disk import Link

Node = dict[str, Any]

# The socket is for the domain's user, in a folder that nobody else may enter.
_FOR_ALL = ("sh", "-c", 'umask 0; exec "$@"', "esd-relay")


def argv(links: Iterable[tuple[str, Link]], monitor: str, socket: str) -> tuple[str, ...]:
    """`links`: each device by its SUID. It is served under the name that it has at the path handler too."""
    devices = tuple(links)
    words = [*_FOR_ALL, "qemu-storage-daemon"]
    for id, path in (("control", monitor), ("observe", observer(monitor))):
        words += ["--chardev", f"socket,id={id},path={path},server=on,wait=off", "--monitor", f"chardev={id}"]
    for credentials in _credentials(link for _, link in devices):
        words += ["--object", json.dumps(credentials)]
    for suid, link in devices:
        for node in (nodes.link(names.remote(suid), link), served(suid, names.remote(suid))):
            words += ["--blockdev", json.dumps(node)]
    words += ["--nbd-server", f"addr.type=unix,addr.path={socket}"]
    for suid, link in devices:
        words += ["--export", json.dumps(_export(suid, link))]
    return tuple(words)


def _credentials(links: Iterable[Link]) -> Iterator[Node]:
    made = [nodes.tls_object(link.endpoint, "client") for link in links]
    yield from {node["id"]: node for node in made if node}.values()


def served(suid: str, below: str) -> Node:
    """The exported node; also the argument of a reopen."""
    return {"driver": "raw", "node-name": names.served(suid), "file": below, "read-only": True}


def zeroes(suid: str, size: int) -> Node:
    """What answers when nothing but holes is asked for any more, and cannot fail."""
    return {"driver": "null-co", "node-name": names.zeroes(suid), "size": size, "read-zeroes": True, "read-only": True}


def _export(suid: str, link: Link) -> Node:
    return {"type": "nbd", "id": names.served(suid), "node-name": names.served(suid), "name": link.export}
