"""QEMU's own migration: capabilities, parameters, start, the wait for each state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qemu_esd.errors import EsdError
from qemu_esd.log import logger
from qemu_esd.qmp.session import Events, Session

# 7.2 can say `completed` while the target is frozen unless return-path is on; see docs/recovery.md.
SOURCE_CAPABILITIES = ("events", "return-path", "pause-before-switchover")
TARGET_CAPABILITIES = ("events", "return-path", "late-block-activate")

# States of `query-migrate` in which memory moves, or the guest has stopped for that.
BUSY = frozenset({"setup", "active", "pre-switchover", "device", "postcopy-active", "postcopy-paused"})


@dataclass(frozen=True)
class Parameters:
    """The migration parameters that we change. `max_bandwidth` in bytes/s, `downtime_limit` in ms, "" = no TLS."""

    tls_creds: str
    tls_hostname: str
    max_bandwidth: int
    downtime_limit: int


@dataclass(frozen=True)
class Progress:
    """`query-migrate`. Bytes of RAM; `downtime_ms` once completed; `error` once failed.

    `dirty_rate` (bytes/s) is how fast the guest writes to its memory, `expected_ms` for how long it would stand still:
    None until QEMU has gone through all of it once.
    """

    status: str
    transferred: int = 0
    remaining: int = 0
    total: int = 0
    downtime_ms: int | None = None
    error: str | None = None
    dirty_rate: int | None = None
    expected_ms: int | None = None


async def progress(session: Session) -> Progress:
    """How far the stream in or out of this QEMU is; "none" where there was none."""
    reply = await session.execute("query-migrate")
    ram = reply.get("ram", {})
    return Progress(
        reply.get("status", "none"),
        ram.get("transferred", 0),
        ram.get("remaining", 0),
        ram.get("total", 0),
        reply.get("downtime"),
        reply.get("error-desc"),
        _dirty_rate(ram),
        reply.get("expected-downtime") if ram.get("dirty-sync-count", 0) > 1 else None,
    )


def _dirty_rate(ram: dict[str, Any]) -> int | None:
    return ram["dirty-pages-rate"] * ram["page-size"] if ram.get("dirty-sync-count", 0) > 1 else None


async def capabilities(session: Session) -> dict[str, bool]:
    """All capabilities of this QEMU, on or off."""
    rows = await session.execute("query-migrate-capabilities")
    return {row["capability"]: row["state"] for row in rows}


async def set_capabilities(session: Session, wanted: dict[str, bool]) -> None:
    """Switch these on or off, and leave the others. Raises QemuError while a migration is under way."""
    rows = [{"capability": name, "state": state} for name, state in wanted.items()]
    await session.execute("migrate-set-capabilities", capabilities=rows)


async def parameters(session: Session) -> Parameters:
    """Those that we change, as they are now."""
    reply = await session.execute("query-migrate-parameters")
    return Parameters(
        reply.get("tls-creds", ""), reply.get("tls-hostname", ""), reply["max-bandwidth"], reply["downtime-limit"]
    )


async def set_parameters(session: Session, wanted: Parameters) -> None:
    """Change all of them; the next migration obeys, and bandwidth and downtime a running one too."""
    await session.execute(
        "migrate-set-parameters",
        tls_creds=wanted.tls_creds,
        tls_hostname=wanted.tls_hostname,
        max_bandwidth=wanted.max_bandwidth,
        downtime_limit=wanted.downtime_limit,
    )


async def listen(session: Session, uri: str) -> None:
    """Start to wait for the stream (`-incoming defer`)."""
    await session.execute("migrate-incoming", uri=uri)


async def start(session: Session, uri: str) -> None:
    """Send the guest to `uri`. Returns at once; what becomes of it is told by events."""
    await session.execute("migrate", uri=uri)


async def go_on(session: Session) -> None:
    """Leave pre-switchover. From here only the source's `completed` tells whether it is committed."""
    await session.execute("migrate-continue", state="pre-switchover")


async def cancel(session: Session) -> None:
    """Ask for the end of the outgoing stream; it has ended with the event `cancelled`, or `completed` if too late."""
    await session.execute("migrate_cancel")


async def break_off(session: Session) -> None:
    """Cut the connection of a stream that has begun: it fails at once, unless it has ended already.

    While the last of a guest goes over, QEMU is deaf for all other commands: with a dead link until TCP gives up.
    """
    try:
        await session.execute_at_once("yank", {"instances": [{"type": "migration"}]})
    except EsdError as error:
        # Whatever is wrong with it is found out by those who ask it next.
        logger.info("there is no stream that could be broken off", host=session.host, reason=str(error))


async def wait_status(events: Events, wanted: frozenset[str], seconds: float) -> str:
    """The first of the states `wanted` that a MIGRATION event names."""
    event = await events.wait(
        lambda event: event["event"] == "MIGRATION" and event["data"]["status"] in wanted,
        seconds,
        f"migration state {' or '.join(sorted(wanted))}",
    )
    return str(event["data"]["status"])
