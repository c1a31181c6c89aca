"""Where the monitors of a QEMU are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from qemu_esd.hypervisors.cmdline import keyval
from qemu_esd.hypervisors.cmdline.facts import Monitor
from qemu_esd.hypervisors.cmdline.keyval import Arguments
from qemu_esd.hypervisors.cmdline.options import Option

_FLAGS = {"qmp": "control", "qmp-pretty": "control", "monitor": "readline"}
_TCP = ("tcp", "telnet", "websocket", "tn3270")


def read_monitors(options: Sequence[Option]) -> tuple[Monitor, ...]:
    """All monitors in the order written; those that QEMU makes by default are not among them."""
    chardevs = {option.arguments.get("id"): option.arguments for option in options if option.flag == "chardev"}
    return tuple(
        _monitor(mode, chardevs.get(chardev) or Arguments(()), chardev)
        if chardev
        else _monitor(mode, legacy(text), text)
        for mode, chardev, text in _modes(options)
    )


def is_libvirts(options: Iterable[Option]) -> bool:
    """Whether it is libvirt that has written this command line, by what it calls the way to its own monitor."""
    return "charmonitor" in monitor_chardevs(options)


def monitor_chardevs(options: Iterable[Option]) -> frozenset[str]:
    """The ids of the chardevs that monitors speak through."""
    return frozenset(chardev for _, chardev, _ in _modes(options) if chardev)


def legacy(text: str) -> Arguments:
    """The short form of a chardev, "unix:/path,server=on", as arguments of -chardev."""
    kind, colon, rest = text.removeprefix("mon:").partition(":")
    if kind == "unix":
        return Arguments((("backend", "socket"), *keyval.parse(rest, "path").pairs))
    if kind in _TCP and colon:
        address, _, more = rest.partition(",")
        host, _, port = address.rpartition(":")
        where = (("backend", "socket"), ("host", host), ("port", port))
        return Arguments((*where, *keyval.parse(more).pairs))
    if kind in ("file", "pipe") and colon:
        return Arguments((("backend", kind), ("path", rest)))
    if kind.startswith("/dev/"):
        return Arguments((("backend", "serial"), ("path", text)))
    return Arguments((("backend", kind),))


def _modes(options: Iterable[Option]) -> Iterator[tuple[str, str, str]]:
    """(mode, chardev id or "", legacy text) of every monitor."""
    for option in options:
        value = option.value or ""
        if option.flag == "mon":
            yield option.arguments.get("mode") or "readline", option.arguments.get("chardev") or "", value
        elif option.flag in _FLAGS and not value.startswith("none"):
            chardev = value.removeprefix("chardev:") if value.startswith("chardev:") else ""
            yield _FLAGS[option.flag], chardev, value
        elif option.flag in ("serial", "parallel") and value.startswith("mon:"):
            yield "readline", "", value


def _monitor(mode: str, chardev: Arguments, text: str) -> Monitor:
    kind: Literal["qmp", "hmp"] = "qmp" if mode == "control" else "hmp"
    server = chardev.is_on("server")
    path, port = chardev.get("path"), chardev.get("port")
    if chardev.get("backend") == "socket" and path and not chardev.is_on("abstract"):
        return Monitor(kind, "unix", path, server)
    if chardev.get("backend") == "socket" and port:
        return Monitor(kind, "tcp", f"{chardev.get('host') or ''}:{port}", server)
    return Monitor(kind, "other", text, server)
