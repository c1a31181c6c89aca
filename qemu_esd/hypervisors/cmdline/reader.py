"""Reads a QEMU command line; refuses only what QEMU could not have read either."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from math import prod

from qemu_esd.errors import RefusedError
from qemu_esd.hypervisors.cmdline import options as cmdline_options
from qemu_esd.hypervisors.cmdline.drives import read_drives
from qemu_esd.hypervisors.cmdline.facts import (
    DEFAULT_MEMORY,
    BlockUse,
    CommandLine,
    Device,
    Drive,
    Node,
)
from qemu_esd.hypervisors.cmdline.keyval import Arguments
from qemu_esd.hypervisors.cmdline.monitors import read_monitors
from qemu_esd.hypervisors.cmdline.nodes import by_name, data_path, read_nodes
from qemu_esd.hypervisors.cmdline.options import Option
from qemu_esd.hypervisors.cmdline.paths import absolute
from qemu_esd.units import MIB, parse_size

_TOPOLOGY = ("sockets", "dies", "clusters", "cores", "threads")


def read(argv: Sequence[str], cwd: str | None = None) -> CommandLine:
    """The facts of a command line, as in /proc/PID/cmdline. Raises RefusedError if it cannot be read.

    `cwd` is the folder that QEMU runs in (/proc/PID/cwd): relative file names become absolute by it, in the
    options too. Without it they stay as they are.
    """
    binary, written = cmdline_options.split(argv)
    options = absolute(written, cwd) if cwd else written
    try:
        return _facts(binary, options)
    except ValueError as bad:
        raise RefusedError(f"cannot read the command line of {binary}: {bad}") from bad


def _facts(binary: str, options: tuple[Option, ...]) -> CommandLine:
    machine, name, smp, memory = (_merged(options, *flags) for flags in _GROUPS)
    drives = read_drives(options, machine.get("type"))
    nodes, devices = read_nodes(options), _devices(options)
    return CommandLine(
        binary=binary,
        options=options,
        name=name.get("guest"),
        uuid=_last(options, "uuid"),
        machine_type=machine.get("type"),
        accel=_accel(options, machine),
        memory=_memory(memory.get("size")),
        cpus=_cpus(smp),
        cpu=_last(options, "cpu"),
        monitors=read_monitors(options),
        drives=drives,
        nodes=nodes,
        devices=devices,
        blocks=tuple(_blocks(drives, nodes, devices)),
    )


_GROUPS = (("machine", "M"), ("name",), ("smp",), ("m",))


def _merged(options: Iterable[Option], *flags: str) -> Arguments:
    """Options that QEMU merges into one when they are given more than once."""
    return Arguments(tuple(pair for option in options if option.flag in flags for pair in option.arguments.pairs))


def _last(options: Iterable[Option], flag: str) -> str | None:
    return next((option.value for option in reversed(tuple(options)) if option.flag == flag), None)


def _accel(options: Iterable[Option], machine: Arguments) -> str | None:
    """All accelerators that QEMU tries, first choice first, joined by colons."""
    wanted = [option.arguments.get("accel") for option in options if option.flag == "accel"]
    if not wanted:
        enabled = any(option.flag == "enable-kvm" for option in options)
        wanted = [machine.get("accel") or ("kvm" if enabled else None)]
    return ":".join(name for name in wanted if name) or None


def _memory(size: str | None) -> int:
    if size is None:
        return DEFAULT_MEMORY
    return int(size) * MIB if size.isdigit() else parse_size(size)


def _cpus(smp: Arguments) -> int:
    given = smp.get("cpus")
    numbers = [smp.get(level) or "1" for level in _TOPOLOGY]
    return int(given) if given else prod(int(number) for number in numbers if re.fullmatch(r"\d+", number))


def _devices(options: Sequence[Option]) -> tuple[Device, ...]:
    return tuple(
        Device(at, given.get("driver") or "", given.get("id"), given)
        for at, option in enumerate(options)
        if option.flag == "device"
        for given in [option.arguments]
    )


def _blocks(drives: Sequence[Drive], nodes: Sequence[Node], devices: Sequence[Device]) -> Iterator[BlockUse]:
    """Drives first, each with the device that names it; then the devices that stand on a -blockdev."""
    named, shown = by_name(nodes), {device.get("drive"): device for device in devices}
    of_drives = {name for drive in drives for name in (drive.id, drive.node_name) if name}
    for drive in drives:
        device = shown.get(drive.id) or (shown.get(drive.node_name) if drive.node_name else None)
        yield BlockUse(drive, None, device, drive.path, drive.read_only)
    for device in devices:
        node = named.get(device.get("drive") or "")
        if node and node.name not in of_drives:
            yield BlockUse(None, node, device, data_path(node, named), node.read_only)
