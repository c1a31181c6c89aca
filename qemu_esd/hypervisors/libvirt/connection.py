"""The libvirt of a host, through the connection that we have to the host: its users, keys and names are those of ssh.

Every call blocks until libvirt has answered, so each has a thread, and what it needs from the event loop (the forwarded
socket) goes on meanwhile. A libvirtd may be started again at any time, its domains run on: the next call opens a new
connection.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import quote

from qemu_esd.errors import DomainBusyError, HostError, LibvirtError, RefusedError, TimedOutError
from qemu_esd.hosts import files
from qemu_esd.hosts.base import Host
from qemu_esd.hypervisors.libvirt import events
from qemu_esd.hypervisors.libvirt.domain import Domain

# virtqemud, where a host has a daemon for each driver, else libvirtd for all: so libvirt's own programs choose, too.
SOCKETS = ("/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock")
# libvirtd may have to wait for another job on the same domain.
CALL_SECONDS = 60.0
# So long a libvirtd that was there may take to start again.
RESTART_SECONDS, LOOK_SECONDS = 20.0, 0.1
# Where a QEMU hangs, or libvirt's own work does.
_START_AGAIN = "wait, and if that lasts start libvirtd (or virtqemud) again there: domains run on"

T = TypeVar("T")


class Connection:
    """The libvirt of a host. `events` is where it tells what happens to its domains."""

    def __init__(self, binding: ModuleType, on: Host) -> None:
        self.binding = binding
        self.host = on.name
        self.events = events.Post()
        self._on = on
        self._raw: Any = None
        # All that were opened, until they are closed in threads. Whoever lets go of the last reference closes one, and
        # waits for an answer that comes by the event loop: the loop itself, which lets go of it after an opening that
        # was cancelled, would wait for ever.
        self._opened: list[Any] = []
        self._closed = False
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Raises HostError where no libvirt listens, LibvirtError."""
        self._raw = await self._connect()

    async def call(self, what: str, act: Callable[[Any], T], seconds: float | None = CALL_SECONDS) -> T:
        """What `act` makes of the connection, in a thread; `what` tells what it was asked for.

        Raises LibvirtError (DomainBusyError), TimedOutError, and HostError where libvirtd went away meanwhile.
        """
        raw = await self.raw()
        try:
            return await self._ask(what, lambda: act(raw), seconds)
        except LibvirtError as error:
            if raw.isAlive():
                raise
            what = f"libvirt has ended while it was asked for {what}"
            raise HostError(what, host=self.host, hint="see that it runs there") from error

    async def _question(self, what: str, act: Callable[[Any], T]) -> T:
        """As `call`, for what changes nothing: asked again where libvirtd had ended and was started anew."""
        try:
            return await self.call(what, act)
        except HostError:
            return await self.call(what, act)

    async def raw(self) -> Any:
        """The binding's own connection, which lives."""
        async with self._opening:
            if not self._raw.isAlive():
                self._raw = await self._again()
            return self._raw

    async def domain(self, name: str) -> Domain | None:
        """What libvirt says of the domain called `name`; None if it has none. Raises LibvirtError, TimedOutError."""
        try:
            return await self._question(f"what {name} is", lambda raw: _domain(self.binding, raw.lookupByName(name)))
        except LibvirtError as error:
            if error.code == self.binding.VIR_ERR_NO_DOMAIN:
                return None
            raise

    async def close(self) -> None:
        """One that does not answer is left to the end of our process."""
        self._closed = True
        for raw in tuple(self._opened):
            with suppress(LibvirtError, TimedOutError):
                await self._ask("to close the connection", raw.close, CALL_SECONDS)

    async def _again(self) -> Any:
        """A libvirtd that is started again is not there for a moment."""
        deadline = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                return await self._connect()
            except (HostError, LibvirtError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(LOOK_SECONDS)

    async def _connect(self) -> Any:
        present = await files.existing(self._on, *SOCKETS)
        socket = next((path for path in SOCKETS if path in present), None)
        if socket is None:
            what = "neither virtqemud nor libvirtd listens there"
            raise HostError(what, host=self.host, hint=f"on it: virsh --connect {uri('local')} uri")
        opening = f"qemu+unix:///system?socket={quote(await self._on.forward(socket))}"
        raw = await self._ask("to open a connection", lambda: self._open(opening), CALL_SECONDS)
        loop = asyncio.get_running_loop()
        await self._ask("its events", lambda: self.events.subscribe(self.binding, raw, loop), CALL_SECONDS)
        return raw

    def _open(self, uri: str) -> Any:
        """In a thread."""
        raw = self.binding.open(uri)
        self._opened.append(raw)
        if self._closed:
            raw.close()
        return raw

    async def _ask(self, what: str, call: Callable[[], T], seconds: float | None) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await _in_thread(call)
        except self.binding.libvirtError as error:
            raise self._error(what, error) from error
        except TimeoutError as error:
            raise TimedOutError("an answer of libvirt", seconds or 0, host=self.host, hint=_START_AGAIN) from error

    def _error(self, what: str, said: Any) -> LibvirtError:
        code = said.get_error_code()
        if code == self.binding.VIR_ERR_OPERATION_TIMEOUT:
            return DomainBusyError(what, str(said), code=code, host=self.host, hint=_START_AGAIN)
        return LibvirtError(what, str(said), code=code, host=self.host)


@asynccontextmanager
async def open_libvirt(host: Host) -> AsyncIterator[Connection]:
    """Raises RefusedError without libvirt's binding for Python, HostError where no libvirt listens, LibvirtError."""
    connection = Connection(_binding(), host)
    try:
        await connection.open()
        yield connection
    finally:
        await connection.close()


def uri(host: str) -> str:
    """How the user's own tools reach the libvirt of a host."""
    return "qemu:///system" if host == "local" else f"qemu+ssh://{host}/system"


def _binding() -> ModuleType:
    try:
        import libvirt
    except ImportError as error:
        raise RefusedError(
            "libvirt's binding for Python is missing here",
            hint="apt-get install libvirt-dev pkg-config gcc python3-dev, then: pip install '/path/to/clone[libvirt]'",
        ) from error
    # It prints each error besides raising it.
    libvirt.registerErrorHandler(lambda *_: None, None)
    events.start(libvirt)
    binding: ModuleType = libvirt
    return binding


def _domain(binding: ModuleType, domain: Any) -> Domain:
    # Here, because the parser is loaded only where there are domains.
    from qemu_esd.hypervisors.libvirt.reader import read

    return Domain(
        configuration=read(domain.XMLDesc()),
        state=_states(binding).get(domain.state()[0], "in an unknown state"),
        persistent=bool(domain.isPersistent()),
        snapshots=domain.snapshotNum(),
        checkpoints=len(domain.listAllCheckpoints()),
    )


async def _in_thread(call: Callable[[], T]) -> T:
    """In a thread that ends with our process: one that waits for an answer for ever must not keep us."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(set_it: Callable[[Any], None], value: object) -> None:
        # Nobody waits any more where it was given up meanwhile.
        if not future.done():
            set_it(value)

    def run() -> None:
        # A loop that has ended meanwhile has nobody to tell.
        with suppress(RuntimeError):
            try:
                result = call()
            except Exception as error:
                # Its frames hold domains, and those the connection: whoever lets go of it last closes it, and waits.
                loop.call_soon_threadsafe(tell, future.set_exception, error.with_traceback(None))
            else:
                loop.call_soon_threadsafe(tell, future.set_result, result)

    threading.Thread(target=run, daemon=True).start()
    return await future


def _states(libvirt: ModuleType) -> dict[int, str]:
    return {
        libvirt.VIR_DOMAIN_RUNNING: "running",
        libvirt.VIR_DOMAIN_BLOCKED: "running",
        libvirt.VIR_DOMAIN_PAUSED: "paused",
        libvirt.VIR_DOMAIN_SHUTDOWN: "being shut down",
        libvirt.VIR_DOMAIN_SHUTOFF: "shut off",
        libvirt.VIR_DOMAIN_CRASHED: "crashed",
        libvirt.VIR_DOMAIN_PMSUSPENDED: "asleep",
    }
