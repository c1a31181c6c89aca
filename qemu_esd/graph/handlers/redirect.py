"""redirect: a read of absent data is answered by the source, and nothing is kept.

guest disk → overlay (qcow2: what the guest wrote) → NBD → source
"""

from __future__ import annotations

from typing import Any

from qemu_esd.graph import names, nodes
from qemu_esd.graph.handlers import overlays
from qemu_esd.model.disk import Image, Link

READ_ERRORS = None


def overlay_options(logical_block: int) -> dict[str, str]:
    """As on-demand, so that a change to a handler that keeps reads is safe on every version."""
    return overlays.plain_options()


def nodes_of(suid: str, member: Image, link: Link, size: int) -> tuple[dict[str, Any], ...]:
    remote = names.remote(suid)
    return (nodes.link(remote, link), overlays.overlay(suid, member, remote))


def top(suid: str) -> str:
    return names.overlay(suid)
