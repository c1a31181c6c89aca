"""The libvirt of a host, through the connection that we have to the host: its users, keys and names are those of ssh.

Every call blocks until libvirt has answered, so each has a thread, and what it needs from the event loop (the forwarded
socket) goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import quote

from qemu_esd.errors import HostError, LibvirtError, RefusedError, TimedOutError
from qemu_esd.hosts import files
from qemu_esd.hosts.base import Host
from qemu_esd.hypervisors.libvirt.domain import Domain

SOCKET = "/run/libvirt/libvirt-sock"
# libvirtd may have to wait for another job on the same domain.
CALL_SECONDS = 60.0

T = TypeVar("T")


class Connection:
    """An open connection to the libvirt of a host."""

    def __init__(self, libvirt: ModuleType, connection: Any, host: str) -> None:
        self._libvirt = self.binding = libvirt
        self._connection = connection
        self.host = host

    async def call(self, what: str, act: Callable[[Any], T], seconds: float | None = CALL_SECONDS) -> T:
        """What `act` makes of the connection, in a thread; `what` tells what it was asked for.

        Raises LibvirtError, TimedOutError.
        """
        return await _ask(self._libvirt, self.host, what, lambda: act(self._connection), seconds)

    async def domain(self, name: str) -> Domain | None:
        """What libvirt says of the domain called `name`; None if it has none. Raises LibvirtError, TimedOutError."""
        return await _ask(self._libvirt, self.host, f"what {name} is", lambda: self._domain(name))

    def _domain(self, name: str) -> Domain | None:
        try:
            domain = self._connection.lookupByName(name)
        except self._libvirt.libvirtError as error:
            if error.get_error_code() == self._libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
        # Here, because the parser is loaded only where there are domains.
        from qemu_esd.hypervisors.libvirt.reader import read

        return Domain(
            configuration=read(domain.XMLDesc()),
            state=_states(self._libvirt).get(domain.state()[0], "in an unknown state"),
            persistent=bool(domain.isPersistent()),
            snapshots=domain.snapshotNum(),
            checkpoints=len(domain.listAllCheckpoints()),
        )

    async def close(self) -> None:
        """One that does not answer is left to the end of our process."""
        with suppress(LibvirtError, TimedOutError):
            await _ask(self._libvirt, self.host, "to close the connection", self._connection.close)


@asynccontextmanager
async def open_libvirt(host: Host) -> AsyncIterator[Connection]:
    """Raises RefusedError without libvirt's binding for Python, HostError where no libvirtd listens, LibvirtError."""
    libvirt = _binding()
    if not await files.existing(host, SOCKET):
        raise HostError("no libvirtd listens there", host=host.name, hint=f"on it: virsh --connect {uri('local')} uri")
    path = quote(await host.forward(SOCKET))
    opening = f"qemu+unix:///system?socket={path}"
    raw = await _ask(libvirt, host.name, "to open a connection", lambda: libvirt.open(opening))
    connection = Connection(libvirt, raw, host.name)
    try:
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
    binding: ModuleType = libvirt
    return binding


async def _ask(
    libvirt: ModuleType, host: str, what: str, call: Callable[[], T], seconds: float | None = CALL_SECONDS
) -> T:
    """The result of `call`, which blocks. `what` it asks for is told where it fails."""
    try:
        async with asyncio.timeout(seconds):
            return await _in_thread(call)
    except libvirt.libvirtError as error:
        raise LibvirtError(what, str(error), host=host) from error
    except TimeoutError as error:
        raise TimedOutError("an answer of libvirt", seconds or 0, host=host) from error


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
                loop.call_soon_threadsafe(tell, future.set_exception, error)
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
