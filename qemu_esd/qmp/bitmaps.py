"""Dirty bitmaps: which clusters of a node were written since a moment. What copy-on-read stores does not count."""

from __future__ import annotations

from qemu_esd.qmp.session import Session


async def add(session: Session, node: str, name: str, granularity: int) -> None:
    """From now on note what is written to `node`, in pieces of `granularity` bytes.

    It is kept in the qcow2 when its QEMU ends in order or gives the image up, and is gone or known as worthless
    otherwise. Raises QemuError if there is one of that name.
    """
    words = {"node": node, "name": name, "granularity": granularity, "persistent": True}
    await session.execute_dict("block-dirty-bitmap-add", words)


async def remove(session: Session, node: str, name: str) -> None:
    """Raises QemuError if there is none, or somebody reads it."""
    await session.execute("block-dirty-bitmap-remove", node=node, name=name)


async def names(session: Session, node: str) -> frozenset[str]:
    """The bitmaps of `node` itself that can be relied on; none where there is no such node."""
    for row in await session.execute("query-named-block-nodes"):
        if row["node-name"] == node:
            return frozenset(each["name"] for each in row.get("dirty-bitmaps", ()) if not each.get("inconsistent"))
    return frozenset()
