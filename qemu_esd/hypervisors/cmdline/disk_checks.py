"""What is wrong with a choice of disks to move."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from qemu_esd.hypervisors.cmdline.carried import DiskSwap
from qemu_esd.hypervisors.cmdline.facts import BlockUse, CommandLine
from qemu_esd.hypervisors.cmdline.nodes import by_name, data_path
from qemu_esd.hypervisors.cmdline.replaced import replaced_nodes

# Interfaces whose device can be written as a -device of its own; with "none" it already is.
_PLACEABLE = {"ide", "virtio"}
_REPORTING = ("virtio-blk", "scsi-hd", "ide-hd", "usb-storage")  # devices with rerror= and werror=


def reports_errors(driver: str | None) -> bool:
    """The device has rerror= and werror=."""
    return (driver or "").startswith(_REPORTING)


def unfit(line: CommandLine, swaps: Iterable[DiskSwap]) -> Iterator[str]:
    """Swaps that cannot be done, each with the option that prevents it."""
    for swap in swaps:
        use = line.find(swap.source)
        if use is None:
            yield f"disk {swap.source} is not on the command line: it was plugged in later"
        elif use.drive and not use.device:
            yield from _without_device(f"{line.options[use.drive.at]}", use.drive.interface, swap)


def _without_device(text: str, interface: str, swap: DiskSwap) -> Iterator[str]:
    if interface == "none":
        yield f"{text}: its device is not on the command line: it was plugged in later"
    elif interface not in _PLACEABLE:
        yield f"{text}: a disk with if={interface} cannot be moved"
    elif not swap.place:
        yield f"{text}: QEMU does not say where its device is"


def left_behind(
    line: CommandLine, moved: Sequence[BlockUse], gone: Collection[int], shared: Collection[str]
) -> Iterator[str]:
    """Local media that the guest writes to and nobody moves: the other host has no such file, or an old one."""
    for use in line.blocks:
        if use not in moved and use.path and not use.read_only and not use.names & set(shared):
            yield _left(line, use.drive.at if use.drive else use.node.at if use.node else 0, use.path)
    yield from _idle_nodes(line, gone, shared)


def _idle_nodes(line: CommandLine, gone: Collection[int], shared: Collection[str]) -> Iterator[str]:
    """The same for nodes that no -device uses: the firmware's variables, or a disk plugged in later."""
    staying = [node for node in line.nodes if node.at not in gone]
    below = {name for node in staying for name in node.below}
    used = {use.node for use in line.blocks}
    for node in staying:
        path = data_path(node, by_name(line.nodes))
        known = {*node.names} & {*below, *shared}
        if path and not node.read_only and not known and node not in used:
            yield _left(line, node.at, path)


def _left(line: CommandLine, at: int, path: str) -> str:
    return f"{line.options[at]}: {path} can be written and is not among the disks that move"


def remarks_on(line: CommandLine, swap: DiskSwap, use: BlockUse) -> Iterator[str]:
    """What will be otherwise about this disk, as far as we cannot help it."""
    throttled = any(node.driver == "throttle" for node in replaced_nodes(line, [use]))
    if throttled or (use.drive and use.drive.limits):
        yield f"disk {use.name} has no I/O limit on the target"
    driver = use.device.driver if use.device else swap.place.driver if swap.place else ""
    if (swap.rerror or swap.werror) and not reports_errors(driver):
        yield f"disk {use.name}: a device {driver} always reports I/O errors to the guest"
    if driver == "usb-storage" and use.drive and use.device and not use.device.arguments.has("serial"):
        yield f"disk {use.name}: the guest no longer finds the name {use.drive.id} in it (SCSI page 83h)"
