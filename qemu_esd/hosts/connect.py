"""From a name to an open host: `local`, a lab host, or whatever `ssh NAME` understands.

The library for ssh takes longer to load than all the rest together, so it is loaded when the first host needs it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from qemu_esd.errors import UsageError
from qemu_esd.hosts import lab
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.local import LocalHost

_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@%-]*")


def check_host_name(name: str) -> None:
    """Raises UsageError for a name that no ssh destination can have (so that none is taken for an option)."""
    if not _HOST_NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not a host name", hint="use what you would give to ssh, a lab host, or local")


@asynccontextmanager
async def open_host(name: str) -> AsyncIterator[Host]:
    """The host called `name`, open until the context ends. Raises HostError, HostKeyError, UsageError."""
    check_host_name(name)
    if name == "local":
        yield LocalHost()
        return
    from qemu_esd.hosts.ssh import open_configured, open_target

    lab_host = lab.find(name)
    if lab_host is None:
        async with open_configured(name) as host:
            yield host
    else:
        # In a thread, because it blocks while there is no answer, and other hosts are asked meanwhile.
        sock = await asyncio.to_thread(lab.open_socket, lab_host)
        async with open_target(name, lab_host.ssh_target(), sock) as host:
            yield host


class Hosts:
    """Hosts by name, each opened once and kept open until the stack they live in ends."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._open: dict[str, Host] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def get(self, name: str) -> Host:
        # Who asks for a host that is just being opened gets that one.
        async with self._turns.setdefault(name, asyncio.Lock()):
            if name not in self._open:
                self._open[name] = await self._stack.enter_async_context(open_host(name))
            return self._open[name]


@asynccontextmanager
async def open_hosts() -> AsyncIterator[Hosts]:
    """A collection of hosts that are closed together."""
    async with AsyncExitStack() as stack:
        yield Hosts(stack)
