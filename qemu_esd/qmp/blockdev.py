"""Block nodes: add, delete, reopen, swap under a device, and look at them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qemu_esd.errors import QemuError
from qemu_esd.qmp.session import Session

Node = dict[str, Any]


async def add(session: Session, node: Node) -> None:
    """`blockdev-add`; `node` is a BlockdevOptions dictionary with a node-name."""
    await session.execute_dict("blockdev-add", node)


async def add_all(session: Session, nodes: Iterable[Node]) -> None:
    """Add nodes in this order; if one is refused none of them stays."""
    added: list[str] = []
    try:
        for node in nodes:
            await add(session, node)
            added.append(node["node-name"])
    except QemuError:
        for name in reversed(added):
            await delete(session, name)
        raise


async def delete(session: Session, name: str) -> None:
    """`blockdev-del`. Raises QemuError while somebody uses the node, or if there is none."""
    await session.execute("blockdev-del", node_name=name)


async def drop(session: Session, name: str) -> None:
    """Remove a node, if it is there: it may never have been made, or be gone since a run that was broken off."""
    if name in await names(session):
        await delete(session, name)


async def reopen(session: Session, node: Node) -> None:
    """`blockdev-reopen` of one node: `node` must repeat every option that is not to fall back to its default."""
    await session.execute("blockdev-reopen", options=[node])


async def swap(session: Session, qdev: str, node: str) -> None:
    """Put `node` under a running guest device; the guest does not notice (measured on 7.2 and 10.0).

    The node that is there already is left alone: setting it once more aborts QEMU 7.2 (`old_bs != new_bs`).
    """
    if await under(session, qdev) != node:
        await session.execute("qom-set", path=qdev, property="drive", value=node)


async def under(session: Session, qdev: str) -> str:
    """The node under a guest device now. Raises QemuError if there is no such device, or nothing in it."""
    # query-block names a device by its id if its QOM path is just that id.
    names = (qdev, qdev.rsplit("/", 1)[-1])
    for row in await devices(session):
        if row.get("qdev") in names and "inserted" in row:
            return str(row["inserted"]["node-name"])
    raise QemuError("query-block", f"there is no block device {qdev}", host=session.host)


async def io_errors(session: Session) -> dict[str, str]:
    """Devices (by QOM path, or id) that have stopped the guest since it was last told to run: "nospace" or "failed"."""
    rows = [(row["qdev"], row.get("io-status", "ok")) for row in await devices(session) if row.get("qdev")]
    return {device: status for device, status in rows if status != "ok"}


async def snapshot(session: Session, node: str, overlay: str) -> None:
    """Put the node `overlay` above `node` for all its users (`blockdev-snapshot`)."""
    await session.execute("blockdev-snapshot", node=node, overlay=overlay)


async def names(session: Session) -> frozenset[str]:
    """The names of all block nodes."""
    nodes = await session.execute("query-named-block-nodes", flat=True)
    return frozenset(node["node-name"] for node in nodes)


async def named(session: Session) -> dict[str, Node]:
    """All block nodes by name, each as a BlockDeviceInfo."""
    nodes = await session.execute("query-named-block-nodes")
    return {node["node-name"]: node for node in nodes}


async def has_subclusters(session: Session, name: str) -> bool:
    """Whether a qcow2 node has extended L2 entries."""
    image = (await named(session))[name]["image"]
    return bool(image["format-specific"]["data"].get("extended-l2", False))


async def has_backing(session: Session, name: str) -> bool:
    """Whether a node is above another one now, whatever its header says."""
    return "backing-image" in (await named(session))[name]["image"]


async def forget_backing(session: Session, device: str, node: str) -> None:
    """Clear the name of the backing in the header of the image `node`; the graph stays as it is.

    `device` is the node at the top of the graph that `node` is in: no other node may be above it.
    """
    await session.execute("change-backing-file", device=device, image_node_name=node, backing_file="")


async def devices(session: Session) -> list[Node]:
    """`query-block`: the guest's block devices with what is inserted in them."""
    return list(await session.execute("query-block"))


def device_path(qdev: str) -> str:
    """The QOM path of a device that `query-block` names by its id."""
    return qdev if qdev.startswith("/") else f"/machine/peripheral/{qdev}"
