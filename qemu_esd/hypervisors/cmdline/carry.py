"""Writes the command line that continues a running QEMU on another host.

The devices stay exactly as they are, so that the memory stream finds every one of them; what belongs to the host
(disk images, monitors, terminals, windows) is replaced. Options that nobody here knows pass through unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from qemu_esd.hypervisors.cmdline import options as cmdline_options
from qemu_esd.hypervisors.cmdline.carried import Carried, DiskSwap, Step, Target
from qemu_esd.hypervisors.cmdline.carry_disks import node_option, swap_disks
from qemu_esd.hypervisors.cmdline.carry_host import (
    in_lasting_words,
    with_accelerator,
    with_machine,
    without_process_options,
    without_windows,
)
from qemu_esd.hypervisors.cmdline.consoles import on_sockets, without_monitors
from qemu_esd.hypervisors.cmdline.facts import CommandLine
from qemu_esd.hypervisors.cmdline.options import Option
from qemu_esd.hypervisors.cmdline.paths import needed
from qemu_esd.hypervisors.cmdline.refusals import blockers, refusals
from qemu_esd.hypervisors.cmdline.sockets import monitor_options


def carry(line: CommandLine, swaps: Sequence[DiskSwap], target: Target) -> Carried:
    """The target's command line: `line` with the disks of `swaps` replaced, waiting for the memory stream.

    What cannot be carried is in `problems`. Raises RefusedError for an option that QEMU could not have read.
    """
    first = swap_disks(line, swaps, target.shared)
    steps = [first]
    for change in _changes(line, target):
        steps.append(change(steps[-1].options))
    options = steps[-1].options
    return Carried(
        argv=(*cmdline_options.join(target.binary or line.binary, (*options, *_ours(target))), *target.extra),
        problems=(
            *blockers(line.options),
            *_refused(line, options),
            *(text for step in steps for text in step.problems),
        ),
        remarks=tuple(text for step in steps for text in step.remarks),
        files=needed(one for one in options if not _is_made(one, swaps, target)),
    )


def _changes(line: CommandLine, target: Target) -> tuple[Callable[[tuple[Option, ...]], Step], ...]:
    return (
        without_monitors,
        without_process_options,
        partial(on_sockets, line, target.console),
        without_windows,
        in_lasting_words,
        partial(with_machine, target.machine_type),
        partial(with_accelerator, target.accel),
    )


def _refused(line: CommandLine, options: tuple[Option, ...]) -> tuple[str, ...]:
    """Devices by the words of the source: here they may have a new drive=, which nobody would recognise."""
    return refusals((*line.flags("device"), *(one for one in options if one.flag != "device")))


def _is_made(one: Option, swaps: Sequence[DiskSwap], target: Target) -> bool:
    """The option's files are made by whoever calls us: overlays, the console."""
    if one.flag == "blockdev":
        return any(one == node_option(node) for swap in swaps for node in swap.nodes)
    return one.flag == "chardev" and one.arguments.get("path") == target.console.path


def _ours(target: Target) -> tuple[Option, ...]:
    """Our monitors, and the start as an empty shell for the memory stream.

    With a monitor among the options QEMU makes no default one; that would be on a terminal with -nographic.
    """
    monitors = tuple(one for socket in target.monitors for one in monitor_options(socket))
    return (*(monitors or (Option("monitor", "none"),)), Option("S"), Option("incoming", "defer"))
