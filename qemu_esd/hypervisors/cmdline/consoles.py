"""Carries serial ports, parallel ports and character devices: there is no terminal on the target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qemu_esd.hypervisors.cmdline.carried import Step
from qemu_esd.hypervisors.cmdline.defaults import has_default_serial
from qemu_esd.hypervisors.cmdline.facts import CommandLine
from qemu_esd.hypervisors.cmdline.keyval import Arguments, keyval
from qemu_esd.hypervisors.cmdline.monitors import legacy, monitor_chardevs
from qemu_esd.hypervisors.cmdline.options import Option, option
from qemu_esd.hypervisors.cmdline.sockets import Console, console_option

# Backends that need somebody who sits there.
_TERMINALS = {"stdio", "pty", "vc", "console", "con", "fd"}
_MONITORS = {"qmp", "qmp-pretty", "monitor", "mon"}
_SHORT = {"serial", "parallel", "debugcon"}


def without_monitors(options: tuple[Option, ...]) -> Step:
    """The options without monitors, and without the chardevs that only monitors spoke through."""
    rest = [one for one in options if one.flag not in _MONITORS]
    users = set(_chardev_users(rest))
    idle = monitor_chardevs(options) - users
    return Step(tuple(one for one in rest if one.flag != "chardev" or one.arguments.get("id") not in idle))


def _chardev_users(options: Iterable[Option]) -> Iterator[str]:
    """The ids of chardevs that devices, ports, network links and objects name."""
    for one in options:
        value = one.value or ""
        if one.flag in ("device", "netdev", "object", "tpmdev"):
            yield from (text for key, text in one.arguments.leaves() if key != "id")
        elif value.startswith("chardev:"):
            yield value.removeprefix("chardev:")


def on_sockets(line: CommandLine, console: Console, options: tuple[Option, ...]) -> Step:
    """Every terminal replaced: the first by `console`, further ones by nothing (`null`).

    The ports that QEMU makes by default keep existing (qemu_create_default_devices() in vl.c).
    """
    heir = _heir(console, options)
    changed = [new for at, one in enumerate(options) for new in _rewritten(one, console, at == heir, options)]
    remarks = [
        f"{one} becomes {console.path if at == heir else 'null: its output is lost'} on the target"
        for at, one in enumerate(options)
        if _is_terminal(one)
    ]
    return Step((*changed, *_default_serial(line, console, heir is None)), remarks=tuple(remarks))


def _heir(console: Console, options: tuple[Option, ...]) -> int | None:
    """The place of the option that the console replaces: itself from an earlier hop, or the first terminal."""
    users = set(_chardev_users(one for one in options if one.flag not in ("parallel", "debugcon")))
    own = [at for at, one in enumerate(options) if _chardev_id(one) == console.id]
    terminals = [
        at
        for at, one in enumerate(options)
        if _is_terminal(one) and (one.flag == "serial" or _chardev_id(one) in users)
    ]
    return next(iter(own + terminals), None)


def _rewritten(one: Option, console: Console, is_heir: bool, options: tuple[Option, ...]) -> list[Option]:
    if one.flag == "chardev":
        return [_chardev(one, console, is_heir, options)]
    if is_heir:
        return [console_option(console), Option("serial", f"chardev:{console.id}")]
    return [Option(one.flag, "null") if _is_terminal(one) else _short(one)]


def _chardev(one: Option, console: Console, is_heir: bool, options: tuple[Option, ...]) -> Option:
    given, id = one.arguments, _chardev_id(one)
    several = list(_chardev_users(options)).count(id or "") > 1
    if not is_heir and not _is_terminal(one):
        return option("chardev", given.with_value("wait", "off")) if _waits(given) else one
    new = (
        console_option(console, id) if is_heir else Option("chardev", keyval({"backend": "null", "id": id}, "backend"))
    )
    return option("chardev", new.arguments.with_value("mux", "on")) if several else new


def _short(one: Option) -> Option:
    """-serial and the like: without the monitor that was mixed in, and not waiting for a client."""
    if one.flag not in _SHORT or one.value is None:
        return one
    value = one.value.removeprefix("mon:")
    return Option(one.flag, f"{value},wait=off" if _waits(legacy(value)) else value)


def _waits(chardev: Arguments) -> bool:
    """QEMU would stand still on the target until a client comes; on the source one came long ago."""
    return chardev.get("backend") == "socket" and chardev.is_on("server") and chardev.is_on("wait", True)


def _is_terminal(one: Option) -> bool:
    if one.flag == "chardev":
        return one.arguments.get("backend") in _TERMINALS
    return one.flag in _SHORT and legacy(one.value or "").get("backend") in _TERMINALS


def _chardev_id(one: Option) -> str | None:
    return one.arguments.get("id") if one.flag == "chardev" else None


def _default_serial(line: CommandLine, console: Console, console_is_free: bool) -> tuple[Option, ...]:
    """The default serial port written out, where QEMU would make one."""
    if has_default_serial(line) and console_is_free:
        return console_option(console), Option("serial", f"chardev:{console.id}")
    if has_default_serial(line) and line.flags("nographic"):
        return (Option("serial", "null"),)
    return ()
