"""on-demand: a read of absent data is answered by the source, and kept.

guest disk → copy-on-read → overlay (qcow2: what was written or read) → NBD → source
"""

from __future__ import annotations

from typing import Any

from qemu_esd.graph import names
from qemu_esd.graph.handlers import overlays, redirect
from qemu_esd.model.disk import Image, Link

READ_ERRORS = None


def overlay_options(logical_block: int) -> dict[str, str]:
    """Never subclusters."""
    return overlays.plain_options()


def nodes_of(suid: str, member: Image, link: Link, size: int) -> tuple[dict[str, Any], ...]:
    return (*redirect.nodes_of(suid, member, link, size), overlays.copy_on_read(suid))


def top(suid: str) -> str:
    return names.copy_on_read(suid)
