"""All nodes below a disk as its record tells it: for a QEMU that starts from disks, not from another one's memory."""

from __future__ import annotations

from typing import Any

from qemu_esd.graph import names, nodes
from qemu_esd.graph.handlers import overlays
from qemu_esd.model.disk import images, link_of
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import DiskRecord

Node = dict[str, Any]


def stack(disk: DiskRecord) -> tuple[tuple[Node, ...], str]:
    """The nodes in the order in which they are opened, and the one that the guest's disk is on."""
    kept, link, suid = images(disk.chain), link_of(disk.chain), disk.suid
    if not kept:
        assert link is not None
        return (
            nodes.link(names.remote_writable(suid), link, writable=True),
            nodes.face(suid, names.remote_writable(suid)),
        ), names.served(suid)
    below = _below(disk)
    made, backing = list(below), below[-1]["node-name"] if below else None
    for level, image in enumerate(reversed(kept)):
        made.append({**overlays.overlay(suid, image, backing, level), "read-only": level < disk.level})
        backing = names.overlay(suid, level)
    if disk.handler is not None and disk.handler.keeps_reads and link is not None:
        return (*made, overlays.copy_on_read(suid, disk.level)), names.copy_on_read(suid)
    return tuple(made), names.overlay(suid, disk.level)


def _below(disk: DiskRecord) -> tuple[Node, ...]:
    """What answers reads of data that no image here has; nothing, where they have all."""
    if disk.handler is Handler.MISS:
        return (nodes.missing(names.absent(disk.suid), disk.size),)
    link = link_of(disk.chain)
    return (nodes.link(names.remote(disk.suid), link),) if link else nodes.whole(names.base(disk.suid), disk.base)
