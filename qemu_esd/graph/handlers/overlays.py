"""What the handlers' overlays have in common."""

from __future__ import annotations

from typing import Any

from qemu_esd.graph import names, nodes
from qemu_esd.model.disk import Image

Node = dict[str, Any]

# Plain clusters of an overlay over the source, in bytes; docs/overlay-options.md has what was measured.
CLUSTER = 16 << 10
# For 256 GiB of a disk with such clusters, as QEMU's own default is for 64 KiB ones. Only what is in use takes memory.
L2_CACHE = 128 << 20
# A map asks the link for as much at once as one entry of this cache covers: 32 MiB of a disk with such clusters, four
# times as much as with QEMU's own 4 KiB. It may not be larger than a cluster, nor than those of `miss`.
L2_ENTRY = 16 << 10


def plain_options() -> dict[str, str]:
    """Creation options without subclusters: copy-on-read above them aborts QEMU below 8.1."""
    return {"cluster_size": str(CLUSTER)}


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
        "l2-cache-size": L2_CACHE,
        "l2-cache-entry-size": L2_ENTRY,
        "backing": backing,
    }


def copy_on_read(suid: str, level: int = 0) -> Node:
    """The filter that keeps in the overlay what is read through it. Without `bottom`: that option hides errors."""
    return {"driver": "copy-on-read", "node-name": names.copy_on_read(suid), "file": names.overlay(suid, level)}
