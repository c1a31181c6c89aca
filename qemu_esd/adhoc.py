"""Ad hoc QMP: the monitor of a guest, or of a path handler: of a guest that has moved on, or of a device.

Through the `user` monitor, so neither a migration nor `status` is kept from its own; a domain's QEMU through libvirt.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from qemu_esd.errors import RefusedError, UsageError
from qemu_esd.hosts import facts
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors import processes, records
from qemu_esd.hypervisors.libvirt.monitor import PREFIX
from qemu_esd.journal import registry
from qemu_esd.model import device
from qemu_esd.model.host import HostPaths
from qemu_esd.phases import device_records, look, meeting, notice, places
from qemu_esd.phases.context import Monitors
from qemu_esd.qmp import care, migrate
from qemu_esd.qmp.client import Listener
from qemu_esd.qmp.session import Session


@dataclass(frozen=True)
class Peer:
    """An open monitor, and why nothing should be changed through it now (None: it is the user's own affair)."""

    session: Session
    caution: str | None

    async def execute(self, command: str, arguments: dict[str, Any], *, write: bool) -> Any:
        """The reply. Raises RefusedError for what changes something against a caution, and for what would end QEMU."""
        if self.needs_leave(command) and not write:
            what = f"{self.caution}; {command} may change something"
            raise RefusedError(what, host=self.session.host, hint="if you mean it, add --write")
        await care.check_harmless(self.session, command)
        return await self.session.execute_dict(command, arguments)

    def needs_leave(self, command: str) -> bool:
        """Whether `command` is one that the user is to be asked about."""
        return self.caution is not None and not care.only_looks(command)


def split_name(word: str) -> tuple[str, str | None]:
    """VM, and HOST of VM@HOST: the path handler of VM, or of a device, there. A VM whose name has an @ goes first."""
    if registry.find(word) is not None or "@" not in word:
        return word, None
    vm, _, host = word.partition("@")
    if not vm or not host:
        raise UsageError(f"{word!r} names neither a guest nor a path handler", hint="write VM, or VM@HOST")
    return vm, host


@dataclass(frozen=True)
class _Monitor:
    """An address, who is behind it, and why nothing should be changed through it, whatever state that one is in."""

    address: str
    label: str
    caution: str | None = None


@asynccontextmanager
async def open_peer(word: str, host: str | None = None, listener: Listener | None = None) -> AsyncIterator[Peer]:
    """The monitor of the guest VM (on `host`, if that is said), or of the path handler VM@HOST or DEVICE@HOST.

    Raises UsageError, RefusedError (no such guest, no free monitor), HostError.
    """
    name, server = split_name(word)
    async with AsyncExitStack() as stack:
        hosts = Hosts(stack)
        where = await hosts.get(server or host or await look.find_host(hosts, name))
        paths = (await facts.look(where)).paths
        monitor = await (_handler(where, paths, name) if server else _guest(where, paths, name))
        session = await Monitors(hosts, stack, listener).get(where.name, monitor.address, monitor.label)
        yield Peer(session, (None if server else await _caution(session, where, paths, name)) or monitor.caution)


async def _guest(host: Host, paths: HostPaths, vm: str) -> _Monitor:
    process = await processes.find(host, vm)
    if process is None:
        raise RefusedError(f"{vm} does not run", host=host.name, hint="see: qemu-esd status; or name it with --host")
    address = meeting.user_of(host.name, process, paths)
    caution = f"libvirt is not told of what is changed in the QEMU of {vm}" if address.startswith(PREFIX) else None
    return _Monitor(address, vm, caution)


async def _handler(host: Host, paths: HostPaths, name: str) -> _Monitor:
    """Of a guest the newest one: a guest that came back and went again may have left two."""
    label = f"the path handler of {name}"
    if found := [link for link in await records.links(host, paths) if link.vm == name]:
        newest = max(found, key=lambda link: link.generation)
        serves = "a guest on another host reads its disks through this path handler"
        return _Monitor(places.handler_socket(paths, newest.migration), label, serves)
    if await device_records.on(host, paths, name) is not None:
        # Being the client of its control monitor is the mutex of the device.
        serves = f"whoever uses {name} on {host.name} does so through this path handler"
        return _Monitor(device.monitor(paths, name, "late"), label, serves)
    raise RefusedError(
        f"no path handler serves {name}", host=host.name, hint=f"its own QEMU: qemu-esd qmp {shlex.quote(name)}"
    )


async def _caution(session: Session, host: Host, paths: HostPaths, vm: str) -> str | None:
    """Why the guest's QEMU is not the user's alone at this time."""
    for begun in await notice.read(host, paths, vm):
        return f"migration {begun.plan.id} of {vm} has not come to its end"
    if (await migrate.progress(session)).status in migrate.BUSY:
        return f"{vm} is being migrated"
    record = await records.guest(host, paths, vm)
    if record is not None and record.upstream:
        return f"{vm} still reads from {', '.join(one.host for one in record.upstream)}"
    return None


class Recorder:
    """Writes each message of a session as a line of JSON: {"at": seconds, "from": "us" | "qemu", "message": {...}}.

    What may be a password or a key is written as "***".
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._began = time.monotonic()

    def __call__(self, sender: str, message: dict[str, Any]) -> None:
        line = {
            "at": round(time.monotonic() - self._began, 6),
            "from": sender,
            "message": care.without_secrets(message),
        }
        # A session that is broken off leaves what there was.
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def open_record(path: Path) -> IO[str]:
    """A new file, for its owner only. Raises UsageError."""
    try:
        path.touch(mode=0o600)
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"no session can be recorded: {error}", hint="--trace FILE names a file to be made") from error
