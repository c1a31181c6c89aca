"""miss: a read of absent data fails at once; nothing is moved and the source is not needed.

    guest disk → overlay (qcow2 with subclusters: what the guest wrote) → a node that fails reads

For caches and scratch, whose user refetches what is missing. The guest sees the error, so it must not stop the VM.
"""

from __future__ import annotations

from typing import Any

from qemu_esd.graph import names, nodes
from qemu_esd.graph.handlers import overlays
from qemu_esd.model.disk import Image, Link

READ_ERRORS = "report"


def overlay_options(logical_block: int) -> dict[str, str]:
    """Subclusters no larger than the guest's block: a write into a larger one would read the rest, and fail."""
    cluster = "128k" if logical_block >= 4096 else "16k"
    return {"cluster_size": cluster, "extended_l2": "on"}


def nodes_of(suid: str, member: Image, link: Link, size: int) -> tuple[dict[str, Any], ...]:
    absent = names.absent(suid)
    return (nodes.missing(absent, size), overlays.overlay(suid, member, absent))


def top(suid: str) -> str:
    return names.overlay(suid)
