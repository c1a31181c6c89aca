"""What a libvirt tells by itself of its domains: its own events, and those of their QEMUs.

All are dictionaries as QMP has them. libvirt's own are called LIFECYCLE {"event", "detail"}, in its numbers, and
BLOCK_JOB {"disk", "type", "status"}.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

LIFECYCLE, BLOCK_JOB = "LIFECYCLE", "BLOCK_JOB"

_started = threading.Lock()
_running = False


def start(binding: ModuleType) -> None:
    """The one thread of the process in which libvirt hears. It has to be there before a connection is opened."""
    global _running
    with _started:
        if not _running:
            binding.virEventRegisterDefaultImpl()
            threading.Thread(target=_run, args=(binding,), daemon=True).start()
            _running = True


def _run(binding: ModuleType) -> None:
    while True:
        try:
            binding.virEventRunDefaultImpl()
        except binding.libvirtError:
            # Of one connection; the others still have something to say.
            time.sleep(1)


class Listener:
    """Events of one domain, by their names, in order; without names all of its QEMU's, which have a time stamp, and
    none of libvirt's own. The same two methods as of a QMP session's."""

    def __init__(self, domain: str, names: Sequence[str]) -> None:
        self.domain = domain
        self.names = frozenset(names)
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def wants(self, domain: str, event: dict[str, Any]) -> bool:
        return domain == self.domain and (event["event"] in self.names if self.names else "timestamp" in event)

    def put(self, event: dict[str, Any]) -> None:
        self._queue.put_nowait(event)

    def empty(self) -> bool:
        return self._queue.empty()

    async def get(self) -> dict[str, Any]:
        return await self._queue.get()


class Post:
    """Hands events on to those who listen."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    @contextmanager
    def listening(self, domain: str, *names: str) -> Iterator[Listener]:
        """Collect events of the domain called `domain` from now on: enter this before what causes them."""
        listener = Listener(domain, names)
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)

    def subscribe(self, binding: ModuleType, raw: Any, loop: asyncio.AbstractEventLoop) -> None:
        """Let a new connection tell. What it tells after `loop` has ended is of no interest to anybody."""
        import libvirt_qemu

        def tell(domain: Any, event: dict[str, Any]) -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._hand_on, domain.name(), event)

        def of_qemu(_: Any, domain: Any, name: str, *rest: Any) -> None:
            seconds, microseconds, data, _ = rest
            stamp = {"seconds": seconds, "microseconds": microseconds}
            tell(domain, {"event": name, "data": json.loads(data) if data else {}, "timestamp": stamp})

        def of_life(_: Any, domain: Any, event: int, detail: int, *__: Any) -> None:
            tell(domain, {"event": LIFECYCLE, "data": {"event": event, "detail": detail}})

        def of_job(_: Any, domain: Any, disk: str, type: int, status: int, *__: Any) -> None:
            tell(domain, {"event": BLOCK_JOB, "data": {"disk": disk, "type": type, "status": status}})

        raw.domainEventRegisterAny(None, binding.VIR_DOMAIN_EVENT_ID_LIFECYCLE, of_life, None)
        raw.domainEventRegisterAny(None, binding.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, of_job, None)
        libvirt_qemu.qemuMonitorEventRegister(raw, None, None, of_qemu, None)

    def _hand_on(self, domain: str, event: dict[str, Any]) -> None:
        for listener in self._listeners:
            if listener.wants(domain, event):
                listener.put(event)
