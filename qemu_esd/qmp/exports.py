"""The NBD server inside a QEMU or a storage daemon, and its exports."""

from __future__ import annotations

from typing import Any

from qemu_esd.errors import QemuError
from qemu_esd.qmp.session import Session

# A half-open old connection must not block a reconnect, and idle strangers must not fill the server.
MAX_CONNECTIONS = 16


async def serve_unix(session: Session, path: str) -> None:
    """Start the NBD server on a unix socket. A QEMU has only one: raises QemuError if it runs already."""
    address = {"type": "unix", "data": {"path": path}}
    await session.execute("nbd-server-start", addr=address, max_connections=MAX_CONNECTIONS)


async def stop_serving(session: Session) -> None:
    """Stop the NBD server with all its exports; not running counts as stopped."""
    try:
        await session.execute("nbd-server-stop")
    except QemuError as error:
        if "not running" not in error.reason:
            raise


async def add(session: Session, id: str, node: str, name: str, *, depth: bool = False) -> None:
    """Export `node` read-only under `name`; with `depth` its allocation depth can be asked for."""
    await _add(session, id, node, name, {"writable": False, "allocation-depth": depth})


async def add_with_bitmap(session: Session, id: str, node: str, name: str, bitmap: str) -> None:
    """Export `node` read-only under `name`, so that its dirty bitmap can be asked for. Raises QemuError without one."""
    await _add(session, id, node, name, {"writable": False, "bitmaps": [bitmap]})


async def add_writable(session: Session, id: str, node: str, name: str) -> None:
    """Export `node` for reads and writes; every write is on the disk before it is acknowledged."""
    await _add(session, id, node, name, {"writable": True, "writethrough": True})


async def _add(session: Session, id: str, node: str, name: str, more: dict[str, Any]) -> None:
    words = {"type": "nbd", "id": id, "node-name": node, "name": name, **more}
    await session.execute_dict("block-export-add", words)


async def add_described(session: Session, export: dict[str, Any]) -> None:
    """Add an export as BlockExportOptions describe it."""
    await session.execute_dict("block-export-add", export)


async def delete_unused(session: Session, id: str) -> bool:
    """Remove an export unless it has a client, in one step: False, and nothing is changed, where it has one."""
    with session.listening("BLOCK_EXPORT_DELETED") as events:
        try:
            await session.execute("block-export-del", id=id, mode="safe")
        except QemuError as error:
            if "in use" in error.reason:
                return False
            raise
        await events.wait(lambda event: event["data"]["id"] == id, 20, f"the end of the export {id}")
    return True


async def delete(session: Session, id: str) -> None:
    """Remove an export at once, clients or not, and wait until it is gone."""
    with session.listening("BLOCK_EXPORT_DELETED") as events:
        await session.execute("block-export-del", id=id, mode="hard")
        await events.wait(lambda event: event["data"]["id"] == id, 20, f"the end of the export {id}")


async def ids(session: Session) -> frozenset[str]:
    """The ids of all exports."""
    return frozenset(export["id"] for export in await session.execute("query-block-exports"))
