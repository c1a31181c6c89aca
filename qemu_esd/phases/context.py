"""What the phases of one migration share: the plan, the open hosts and monitors, the journal, the listener."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors.libvirt.connection import Connection, open_libvirt
from qemu_esd.hypervisors.libvirt.monitor import PREFIX, DomainSession
from qemu_esd.journal.store import Journal
from qemu_esd.log import logger, rebind
from qemu_esd.model.plan import Plan
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Entered, Held, Measured, Released, State
from qemu_esd.model.resource import Resource
from qemu_esd.phases import places
from qemu_esd.qmp.client import Listener
from qemu_esd.qmp.session import Session, open_session

Event = State | Measured | Progress
Reporter = Callable[[Event], None]


async def together(*work: Awaitable[None]) -> None:
    """Side by side; raises the first failure, but only when all have come to an end, so that undoing meets no doing."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


class Monitors:
    """QMP sessions by host and address, each opened once: a socket serves one client, and that is us.

    The address is a socket, or a domain that the host's libvirt speaks for. `listener` hears all that is said.
    """

    def __init__(self, hosts: Hosts, stack: AsyncExitStack, listener: Listener | None = None) -> None:
        self._hosts = hosts
        self._stack = stack
        self._listener = listener
        self._open: dict[tuple[str, str], Session] = {}
        self._libvirts: dict[str, Connection] = {}

    async def get(self, host: str, monitor: str, label: str) -> Session:
        key = (host, monitor)
        if key not in self._open:
            self._open[key] = await self._new(host, monitor, label)
        return self._open[key]

    async def _new(self, host: str, monitor: str, label: str) -> Session:
        if monitor.startswith(PREFIX):
            return DomainSession(await self.libvirt(host), monitor, self._listener)
        session = open_session(await self._hosts.get(host), monitor, label, self._listener)
        return await self._stack.enter_async_context(session)

    async def libvirt(self, host: str) -> Connection:
        """The libvirt of a host. Raises HostError where there is none, RefusedError without its binding here."""
        if host not in self._libvirts:
            opening = open_libvirt(await self._hosts.get(host))
            self._libvirts[host] = await self._stack.enter_async_context(opening)
        return self._libvirts[host]


class Clock:
    """Monotonic marks of one migration; only differences mean anything."""

    def __init__(self, *, started: bool = True) -> None:
        self._marks = {"start": time.monotonic()} if started else {}

    def mark(self, name: str) -> None:
        self._marks[name] = time.monotonic()

    def ms(self, since: str, until: str | None = None) -> float | None:
        """From one mark to another, or until now. None for what this process has not seen: it follows another one."""
        if since not in self._marks or (until is not None and until not in self._marks):
            return None
        return ((self._marks[until] if until else time.monotonic()) - self._marks[since]) * 1000


@dataclass(frozen=True)
class Context:
    """One migration at work."""

    plan: Plan
    hosts: Hosts
    monitors: Monitors
    journal: Journal
    report: Reporter
    clock: Clock = field(default_factory=Clock)
    # What libvirt still does beside us when its domain runs on the target already.
    beside: set[asyncio.Future[None]] = field(default_factory=set)

    async def source(self) -> Host:
        return await self.hosts.get(self.plan.source.host)

    async def target(self) -> Host:
        return await self.hosts.get(self.plan.target.host)

    async def source_qemu(self) -> Session:
        return await self.monitors.get(self.plan.source.host, self.plan.guest.monitor, self.plan.vm)

    async def target_qemu(self) -> Session:
        return await self.monitors.get(self.plan.target.host, places.target_monitor(self.plan), self.plan.vm)

    async def path_handler(self) -> Session:
        monitor = places.handler_monitor(self.plan)
        return await self.monitors.get(self.plan.source.host, monitor, "the path handler")

    def hold(self, *resources: Resource) -> None:
        """Write down what is about to be made. A kill after this line: recovery looks whether it exists."""
        for resource in resources:
            self.journal.append(Held(resource))

    def disown(self, resource: Resource) -> None:
        """It turned out to be somebody else's: nothing of ours is there to be undone."""
        self.journal.append(Released(resource))

    def enter(self, state: State) -> None:
        """Write down that the migration enters `state`, and tell the listener."""
        self.journal.append(Entered(state))
        rebind(phase=state.value, host=(self.plan.target if state.committed else self.plan.source).host)
        logger.info("entered", phase=state.value)
        self.report(state)

    def measure(self, name: str, since: str, until: str | None = None) -> None:
        """How long it was from the mark `since`, until `until` or now; nothing where that was another process."""
        ms = self.clock.ms(since, until)
        if ms is not None:
            figure = Measured(name, ms)
            self.journal.append(figure)
            logger.info("measured", figure=name, ms=round(ms, 1))
            self.report(figure)
