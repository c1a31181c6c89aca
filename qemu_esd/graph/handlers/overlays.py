"""What the handlers' overlays have in common."""

from __future__ import annotations

from typing import Any

from qemu_esd.graph import names, nodes
from qemu_esd.model.disk import Image

Node = dict[str, Any]

# A map asks the link for as much at once as one entry of this cache covers: with 64 KiB clusters 128 MiB, and only
# 32 MiB with QEMU's own 4 KiB, so that 1 TiB of holes is 8192 round trips and not 32768. At most the least cluster.
L2_ENTRY = 16 << 10


def overlay(suid: str, member: Image, backing: str | None, level: int = 0) -> Node:
    """The member on the target, opened over the node `backing` whatever its header says.

    Discards are ignored while data is missing: a discard that races with an allocating write corrupts a qcow2
    (7.2.22 and 10.2.2).
    """
    return {
        "driver": "qcow2",
        "node-name": names.overlay(suid, level),
        "file": {**nodes.file_node(member), "node-name": names.file(suid, level)},
        "discard": "ignore",
        "l2-cache-entry-size": L2_ENTRY,
        "backing": backing,
    }


def copy_on_read(suid: str, level: int = 0) -> Node:
    """The filter that keeps in the overlay what is read through it. Without `bottom`: that option hides errors."""
    return {"driver": "copy-on-read", "node-name": names.copy_on_read(suid), "file": names.overlay(suid, level)}
