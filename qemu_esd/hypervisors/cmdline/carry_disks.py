"""Carries the disks: other nodes below, the same device above.

What the guest sees of a disk comes from its device, but three things of a -drive show through and are
moved onto the device: whether the write cache is on, the id (a SCSI disk without a serial number identifies
itself by it), and the position on the bus. QEMU: hw/block/block.c, hw/scsi/scsi-disk.c, blockdev.c.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from qemu_esd.hypervisors.cmdline.carried import DiskSwap, Step
from qemu_esd.hypervisors.cmdline.defaults import default_cdrom
from qemu_esd.hypervisors.cmdline.disk_checks import left_behind, remarks_on, reports_errors, unfit
from qemu_esd.hypervisors.cmdline.drives import as_drive
from qemu_esd.hypervisors.cmdline.facts import BlockUse, CommandLine, Drive
from qemu_esd.hypervisors.cmdline.keyval import Arguments
from qemu_esd.hypervisors.cmdline.options import Option, option
from qemu_esd.hypervisors.cmdline.replaced import replaced

# A bus is called after the id of its device: with a new id, bus= of other devices would find it no longer.
_NAMING_A_BUS = {"nvme", "usb-storage", "usb-bot", "usb-uas"}
_NAMED_BY_DRIVE = ("scsi-hd", "scsi-cd", "scsi-disk")  # devices with device_id=


def swap_disks(line: CommandLine, swaps: Sequence[DiskSwap], shared: frozenset[str]) -> Step:
    """The options with the disks replaced. Those in no swap stay; writable ones must be shared or remote."""
    pairs = [(swap, use) for swap in swaps for use in [line.find(swap.source)] if use]
    moved = [use for _, use in pairs]
    gone = replaced(line, moved)
    devices = {use.device.at: _device(use.device.arguments, *pair) for pair in pairs if (use := pair[1]).device}
    made = [_made_device(swap, use) for swap, use in pairs if not use.device and swap.place]
    kept = [
        option("device", devices[at]) if at in devices else _pinned(line, at, moved)
        for at in range(len(line.options))
        if at not in gone
    ]
    nodes = [node_option(node) for swap in swaps for node in swap.nodes]
    return Step(
        options=(*_before_devices(kept, nodes), *made, *default_cdrom(line, made)),
        problems=(*unfit(line, swaps), *left_behind(line, moved, gone, shared)),
        remarks=tuple(remark for swap, use in pairs for remark in remarks_on(line, swap, use)),
    )


def node_option(node: Mapping[str, object]) -> Option:
    return Option("blockdev", json.dumps(dict(node), ensure_ascii=False))


def _before_devices(options: Sequence[Option], nodes: Sequence[Option]) -> tuple[Option, ...]:
    at = next((i for i, one in enumerate(options) if one.flag == "device"), len(options))
    return (*options[:at], *nodes, *options[at:])


def _device(given: Arguments, swap: DiskSwap, use: BlockUse) -> Arguments:
    """The -device with its new node, and with what the -drive used to say about it."""
    if swap.device_id and not given.has("id") and given.get("driver") not in _NAMING_A_BUS:
        given = given.with_value("id", swap.device_id)
    given = given.with_value("drive", swap.node)
    for key, value in _moved(given, use.drive) if use.drive else ():
        given = given.with_value(key, value)
    for key, wanted in (("rerror", swap.rerror), ("werror", swap.werror)):
        if wanted and reports_errors(given.get("driver")):
            given = given.with_value(key, wanted)
    return given


def _moved(given: Arguments, drive: Drive) -> Iterator[tuple[str, str]]:
    if not drive.write_cache and given.get("write-cache") in (None, "auto"):
        yield "write-cache", "off"
    for key, value in (("rerror", drive.rerror), ("werror", drive.werror)):
        if value and reports_errors(given.get("driver")) and given.get(key) in (None, "auto"):
            yield key, value
    if given.get("driver") in _NAMED_BY_DRIVE and not given.has("serial", "device_id"):
        yield "device_id", drive.id


def _made_device(swap: DiskSwap, use: BlockUse) -> Option:
    """The -device that a -drive used to make by itself.

    In the flat form: QEMU makes JSON devices last, and those of if=virtio right after the flat ones.
    """
    assert swap.place
    place = swap.place
    words = {
        "driver": place.driver,
        "id": swap.device_id,
        "bus": place.bus,
        "addr": place.addr,
        "unit": place.unit,
    }
    given = Arguments(tuple((key, value) for key, value in words.items() if value is not None), "driver")
    return option("device", _device(given, swap, use))


def _pinned(line: CommandLine, at: int, moved: Iterable[BlockUse]) -> Option:
    """An option that stays; a drive with its position written out if one that counted before it has gone."""
    drive = next((drive for drive in line.drives if drive.at == at), None)
    interfaces = {use.drive.interface for use in moved if use.drive} - {"none"}
    if drive is None or drive.placed or drive.interface not in interfaces:
        return line.options[at]
    given = as_drive(line.options[at]).without("bus", "unit")
    return option("drive", given.with_value("bus", str(drive.bus)).with_value("unit", str(drive.unit)))
