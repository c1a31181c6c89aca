"""The monitor of a domain: libvirt holds it, and passes commands and events on.

Only for what its API has no word for, and never for what would make its own view of the domain wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qemu_esd.errors import LibvirtError, QemuError, QemuGoneError
from qemu_esd.hypervisors.libvirt.connection import Connection
from qemu_esd.hypervisors.libvirt.events import LIFECYCLE
from qemu_esd.log import timed
from qemu_esd.qmp.client import Listener
from qemu_esd.qmp.session import Events, Session

PREFIX = "libvirt:"


def address(name: str) -> str:
    """The monitor of the domain called `name`, as an address beside those that are sockets."""
    return f"{PREFIX}{name}"


class DomainSession(Session):
    """It is never lost, and never busy: libvirt serves everybody. `listener` hears commands and their answers."""

    def __init__(self, libvirt: Connection, monitor: str, listener: Listener | None = None) -> None:
        self._libvirt = libvirt
        self.host = libvirt.host
        self.label = monitor.removeprefix(PREFIX)
        self.monitor = monitor
        self._tell = listener or (lambda _, message: None)

    async def _execute(self, command: str, arguments: dict[str, Any], *, oob: bool = False) -> Any:
        import libvirt_qemu

        message = {"execute": command, **({"arguments": arguments} if arguments else {})}
        self._tell("us", message)
        try:
            with timed("QMP", host=self.host, peer=self.label, command=command):
                said = await self._libvirt.call(
                    f"{command} of {self.label}",
                    lambda raw: libvirt_qemu.qemuMonitorCommand(raw.lookupByName(self.label), json.dumps(message), 0),
                )
        except LibvirtError as error:
            raise self._meant(error) from error
        reply = json.loads(said)
        self._tell("qemu", reply)
        if "error" in reply:
            raise QemuError(command, reply["error"].get("desc", "it does not say why"), host=self.host)
        return reply["return"]

    def _meant(self, error: LibvirtError) -> Exception:
        binding = self._libvirt.binding
        if error.code in (binding.VIR_ERR_NO_DOMAIN, binding.VIR_ERR_OPERATION_INVALID):
            return QemuGoneError(f"{self.label} does not run any more", host=self.host)
        return error

    @contextmanager
    def listening(self, *names: str) -> Iterator[Events]:
        with self._libvirt.events.listening(self.label, *names) as listener:
            yield Events(self, listener)

    async def closed(self) -> None:
        """Returns when the domain has ended."""
        binding = self._libvirt.binding
        with self._libvirt.events.listening(self.label, LIFECYCLE) as listener:
            while await self._runs():
                event = await listener.get()
                if event["data"]["event"] in (binding.VIR_DOMAIN_EVENT_STOPPED, binding.VIR_DOMAIN_EVENT_CRASHED):
                    return

    async def _runs(self) -> bool:
        domain = await self._libvirt.domain(self.label)
        return domain is not None and domain.state not in ("shut off", "crashed")

    async def disconnect(self) -> None:
        """The connection to libvirt is not ours alone."""

    async def _gone(self) -> QemuGoneError:
        return QemuGoneError(f"{self.label} does not run any more", host=self.host)
