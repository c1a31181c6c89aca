"""A QEMU's own words, by its third monitor: what a test asks, and what it does to a guest behind our back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from qemu.qmp import ConnectError, ExecuteError

from qemu_esd.model.host import guest_sockets
from qemu_esd.qmp.client import Client
from tests.integration.support.guest import PATHS, Guest
from tests.integration.support.machine import Machine


@asynccontextmanager
async def monitor(guest: Guest, socket: str | None = None) -> AsyncIterator[Client]:
    """A session on the monitor that is the user's, or on `socket` of the guest's host."""
    client = Client("test")
    await client.connect(str(guest.machine.path(socket or guest_sockets(PATHS, guest.name).user)))
    try:
        yield client
    finally:
        await client.disconnect()


async def tell(guest: Guest, command: str, **arguments: Any) -> Any:
    """One command; underscores in names stand for dashes."""
    async with monitor(guest) as qemu:
        return await qemu.execute(command, {name.replace("_", "-"): value for name, value in arguments.items()})


async def _rows(qemu: Client, command: str) -> Any:
    return await qemu.execute(command)


async def qemu_facts(guest: Guest) -> dict[str, Any]:
    """All in a QEMU that a migration would change."""
    asked = ("query-status", "query-block-exports", "query-migrate-capabilities", "query-migrate-parameters")
    async with monitor(guest) as qemu:
        facts: dict[str, Any] = {command: await qemu.execute(command) for command in asked}
        facts["jobs"] = [(job["id"], job["status"]) for job in await _rows(qemu, "query-jobs")]
        # A disk that QEMU has given up makes it refuse this question.
        with suppress(ExecuteError):
            facts["nodes"] = sorted(node["node-name"] for node in await _rows(qemu, "query-named-block-nodes"))
        facts["objects"] = await qemu.execute("qom-list", {"path": "/objects"})
    return facts


async def running_on(machines: Iterable[Machine], name: str) -> list[str]:
    """The hosts on which the guest `name` runs, by the word of their QEMUs."""
    return [machine.name for machine in machines if machine.qemus(name) and await _runs(machine, name)]


async def _runs(machine: Machine, name: str) -> bool:
    client = Client("test")
    try:
        await client.connect(str(machine.path(guest_sockets(PATHS, name).user)))
    except ConnectError:
        # It has ended since.
        return False
    state: Any = await client.execute("query-status")
    await client.disconnect()
    return bool(state["running"])
