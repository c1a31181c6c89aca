"""One QMP session with a QEMU or a storage daemon: commands with a bound, events raced against the peer's end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol

from qemu.qmp import (
    ConnectError,
    ExecInterruptedError,
    ExecuteError,
    QMPError,
    Runstate,
    StateError,
)

from qemu_esd.errors import MonitorBusyError, QemuError, QemuGoneError, TimedOutError
from qemu_esd.hosts.base import Host
from qemu_esd.log import timed
from qemu_esd.qmp.client import Client, Listener

# A busy QEMU takes a while to notice that its former client has gone.
GREETING_SECONDS = 10.0
COMMAND_SECONDS = 30.0

# The library logs a lost peer as an error; here that is an exception with a host's name in it.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)


class EventSource(Protocol):
    """What collects events: a QMP client's, or another."""

    def empty(self) -> bool: ...
    async def get(self) -> Mapping[str, Any]: ...


class Session:
    """An open monitor. `label` names the peer in errors (a VM or a path handler), `monitor` is its socket there."""

    def __init__(self, client: Client, host: Host, label: str, monitor: str) -> None:
        self._client = client
        self._on = host
        self.host = host.name
        self.label = label
        self.monitor = monitor

    async def execute(self, command: str, /, **arguments: object) -> Any:
        """The reply to `command`; underscores in argument names stand for dashes.

        Raises QemuError (refused), QemuGoneError (the peer ended), HostError (the way to it did), TimedOutError.
        """
        words = {name.replace("_", "-"): value for name, value in arguments.items() if value is not None}
        return await self.execute_dict(command, words)

    async def execute_dict(self, command: str, arguments: dict[str, Any]) -> Any:
        """The same with the arguments as QMP writes them."""
        return await self._execute(command, arguments)

    async def execute_at_once(self, command: str, arguments: dict[str, Any]) -> None:
        """A command that QEMU obeys also while it hangs in another one, or in its own work ("out of band")."""
        await self._execute(command, arguments, oob=True)

    async def _execute(self, command: str, arguments: dict[str, Any], *, oob: bool = False) -> Any:
        try:
            with timed("QMP", host=self.host, peer=self.label, command=command):
                async with asyncio.timeout(COMMAND_SECONDS):
                    return await self._client.execute(command, arguments or None, oob=oob)
        except ExecuteError as error:
            raise QemuError(command, str(error), host=self.host) from error
        except (ExecInterruptedError, StateError) as error:
            raise await self._gone() from error
        except QMPError as error:
            raise QemuError(command, "it answers what is no answer", host=self.host) from error
        except TimeoutError as error:
            raise TimedOutError(f"an answer of {self.label} to {command}", COMMAND_SECONDS, host=self.host) from error

    @contextmanager
    def listening(self, *names: str) -> Iterator[Events]:
        """Collect events called `names` from now on: enter this before the command that causes them."""
        with self._client.listener(names) as listener:
            yield Events(self, listener)

    async def closed(self) -> None:
        """Returns when the peer has gone."""
        while self._client.runstate == Runstate.RUNNING:
            await self._client.runstate_changed()

    async def quit(self) -> None:
        """End the peer. The socket often closes before the reply comes: that is success."""
        with suppress(QemuGoneError):
            await self.execute("quit")

    async def disconnect(self) -> None:
        # A peer that is already gone makes disconnect() raise what killed it: of no interest at this point.
        with suppress(Exception):
            await asyncio.wait_for(self._client.disconnect(), GREETING_SECONDS)

    async def _gone(self) -> QemuGoneError:
        """Raises HostError instead if it is the way to the host that ended: nobody knows about the peer then."""
        await _check_reachable(self._on)
        return QemuGoneError(f"the monitor of {self.label} went away", host=self.host)


class Events:
    """Events of one session, in order. Waiting ends with QemuGoneError or HostError when the peer or the way ends."""

    def __init__(self, session: Session, listener: EventSource) -> None:
        self._session = session
        self._listener = listener

    async def get(self) -> dict[str, Any]:
        """The next event: {"event", "data"?, "timestamp"}."""
        if not self._listener.empty():
            return dict(await self._listener.get())
        event = asyncio.ensure_future(self._listener.get())
        closed = asyncio.ensure_future(self._session.closed())
        try:
            await asyncio.wait({event, closed}, return_when=asyncio.FIRST_COMPLETED)
            if event.done():
                return dict(event.result())
            raise await self._session._gone()
        finally:
            for task in (event, closed):
                task.cancel()

    async def wait(self, accept: Callable[[dict[str, Any]], bool], seconds: float, what: str) -> dict[str, Any]:
        """The first event that `accept` takes; raises TimedOutError(what) after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while not accept(event := await self.get()):
                    pass
                return event
        except TimeoutError as error:
            raise TimedOutError(what, seconds, host=self._session.host) from error


async def _check_reachable(host: Host) -> None:
    await host.attempt(("true",))


@asynccontextmanager
async def open_session(
    host: Host, monitor: str, label: str, listener: Listener | None = None
) -> AsyncIterator[Session]:
    """A session on the unix socket `monitor` of `host`.

    A QMP socket serves one client at a time and lets a second one wait without a word, so a missing greeting
    is MonitorBusyError; a socket that nobody listens on is QemuGoneError. A way that has ended is HostError.
    """
    client = Client(label, listener)
    path = await host.forward(monitor)
    try:
        await asyncio.wait_for(client.connect(path), GREETING_SECONDS)
    except TimeoutError as error:
        await _check_reachable(host)
        raise MonitorBusyError(
            f"the QMP socket {monitor} of {label} is held by another client",
            host=host.name,
            hint="end the other client, or give the guest a second -qmp socket",
        ) from error
    except ConnectError as error:
        await _check_reachable(host)
        raise QemuGoneError(f"nobody answers on the QMP socket {monitor} of {label}", host=host.name) from error
    session = Session(client, host, label, monitor)
    try:
        yield session
    finally:
        await session.disconnect()
