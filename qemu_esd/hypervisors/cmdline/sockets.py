"""The sockets of our own QEMUs: QMP monitors, and the console that is recorded."""

from __future__ import annotations

from dataclasses import dataclass

from qemu_esd.hypervisors.cmdline.keyval import keyval
from qemu_esd.hypervisors.cmdline.options import Option


@dataclass(frozen=True)
class QmpSocket:
    """A QMP monitor that listens on a unix socket. `id` names its chardev."""

    id: str
    path: str


@dataclass(frozen=True)
class Console:
    """The guest's serial port: a unix socket that listens at `path`, and the file `log` of all its output."""

    id: str
    path: str
    log: str


def monitor_options(socket: QmpSocket) -> tuple[Option, ...]:
    return (
        Option("chardev", _listening({"id": socket.id, "path": socket.path})),
        Option("mon", keyval({"chardev": socket.id, "mode": "control"}, "chardev")),
    )


def console_option(console: Console, id: str | None = None) -> Option:
    """The chardev of the console, under the id that the guest's device already uses if there is one."""
    return Option(
        "chardev",
        _listening({"id": id or console.id, "path": console.path, "logfile": console.log, "logappend": "on"}),
    )


def _listening(more: dict[str, str]) -> str:
    # wait=off: with "on" QEMU stands still until a client comes.
    return keyval({"backend": "socket", **more, "server": "on", "wait": "off"}, "backend")
