"""A witness of a migration who takes no part in it: both QEMUs' own events, and the guest's console.

The same instrument for whatever moves the guest. It is the client of the monitor and of the console that nobody
else uses; times are the machine's wall clock, which the lab's hosts share.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from images.console import STATUS, LoadLine, parse
from qemu_esd.errors import EsdError, QemuGoneError
from qemu_esd.hosts.local import LocalHost
from qemu_esd.model.host import GuestSockets, guest_sockets
from qemu_esd.qmp import migrate
from qemu_esd.qmp.session import Session, open_session
from tests.integration.support.guest import PATHS
from tests.integration.support.machine import Machine

# A socket in the file system has no event: looked at until it is there.
LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Beat:
    """A line of the load: when it came, from which host, and what it says."""

    at: float
    host: str
    line: LoadLine

    @property
    def lateness(self) -> float:
        """Seconds that the line is behind the guest's clock, plus a constant: it grows while the guest stands still."""
        return self.at - self.line.number("t")


class Witness:
    """What has been seen so far. `events`: name of QEMU's event and host → when it was last seen.

    `monitors`: an open one on each host where the guest's QEMU is.
    """

    def __init__(self) -> None:
        self.beats: list[Beat] = []
        self.events: dict[tuple[str, str], float] = {}
        self.downtime_ms: int | None = None
        self.monitors: dict[str, Session] = {}
        self._news = asyncio.Event()

    def beats_of(self, host: str) -> list[Beat]:
        return [beat for beat in self.beats if beat.host == host]

    async def until(self, true: Callable[[], bool]) -> None:
        """Returns when `true()` is."""
        while not true():
            self._news.clear()
            await self._news.wait()

    async def hear(self, host: str, beats: int) -> None:
        """Returns when `beats` more lines of the load have come from `host`."""
        wanted = len(self.beats_of(host)) + beats
        await self.until(lambda: len(self.beats_of(host)) >= wanted)

    def saw(self, host: str, event: dict[str, Any]) -> None:
        stamp = event["timestamp"]
        self.events[event["event"], host] = stamp["seconds"] + stamp["microseconds"] / 1e6
        self._news.set()

    def heard(self, host: str, text: bytes) -> None:
        line = parse(text.decode(errors="replace"))
        if line is not None and line.word == STATUS:
            self.beats.append(Beat(time.time(), host, line))
            self._news.set()


@asynccontextmanager
async def watching(name: str, *machines: Machine) -> AsyncIterator[Witness]:
    """Watch the guest `name` on these hosts, on each from the moment that its QEMU is there."""
    witness = Witness()
    tasks = [asyncio.ensure_future(_watch(witness, machine, name)) for machine in machines]
    try:
        yield witness
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watch(witness: Witness, machine: Machine, name: str) -> None:
    sockets = guest_sockets(PATHS, name)
    await asyncio.gather(_watch_monitor(witness, machine, sockets), _watch_console(witness, machine, sockets))


async def _appeared(machine: Machine, socket: str) -> str:
    path = machine.path(socket)
    while not path.exists():
        await asyncio.sleep(LOOK_SECONDS)
    return str(path)


async def _connected(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The socket is there a moment before QEMU listens."""
    while True:
        with suppress(ConnectionRefusedError):
            return await asyncio.open_unix_connection(path)
        await asyncio.sleep(LOOK_SECONDS)


async def _watch_monitor(witness: Witness, machine: Machine, sockets: GuestSockets) -> None:
    path = await _appeared(machine, sockets.user)
    # Its end is a QEMU that has quit, or is not listening yet.
    with suppress(QemuGoneError):
        async with open_session(LocalHost(), path, machine.name) as session:
            witness.monitors[machine.name] = session
            with session.listening("STOP", "RESUME", "MIGRATION") as events:
                while True:
                    event = await events.get()
                    witness.saw(machine.name, event)
                    await _ask_downtime(witness, session, event)


async def _ask_downtime(witness: Witness, session: Session, event: dict[str, Any]) -> None:
    """QEMU's own figure: only the source has one."""
    if event.get("data", {}).get("status") == "completed":
        with suppress(EsdError):
            witness.downtime_ms = (await migrate.progress(session)).downtime_ms or witness.downtime_ms


async def _watch_console(witness: Witness, machine: Machine, sockets: GuestSockets) -> None:
    reader, writer = await _connected(await _appeared(machine, sockets.console))
    try:
        while text := await reader.readline():
            witness.heard(machine.name, text)
    finally:
        writer.close()
