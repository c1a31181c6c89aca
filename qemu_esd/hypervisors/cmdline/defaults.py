"""The devices that QEMU makes although nobody asked: default_list and qemu_create_default_devices() in vl.c.

An option that we add must not take one of them away, nor bring one that was not there.
"""

from __future__ import annotations

from collections.abc import Iterable

from qemu_esd.hypervisors.cmdline.drives import (
    DEFAULT_CDROM_INDEX,
    default_interface,
    units_per_bus,
)
from qemu_esd.hypervisors.cmdline.facts import CommandLine
from qemu_esd.hypervisors.cmdline.options import Option

# A -device or -global of one of these and QEMU makes no CD-ROM drive.
_INSTEAD_OF_CDROM = {"ide-cd", "ide-hd", "scsi-cd", "scsi-hd"}


def has_default_serial(line: CommandLine) -> bool:
    """A serial port is made that no option asks for: on the terminal with -nographic, else on a virtual console.

    The default parallel port needs no care: with -nographic, which stays, QEMU puts it on null by itself.
    """
    return not _suppressed(line, "serial", {"isa-serial"})


def default_cdrom(line: CommandLine, added: Iterable[Option]) -> tuple[Option, ...]:
    """The empty CD-ROM drive written out, if QEMU made it on the source and `added` devices would prevent it.

    Measured on QEMU 7.2: `-device ide-hd` in place of `-hda` makes the drive at ide.1 disappear.
    """
    interface = default_interface(line.machine_type)
    per_bus = units_per_bus(interface, line.machine_type)
    if interface != "ide" or _suppressed(line, None, _INSTEAD_OF_CDROM):
        return ()
    place = (interface, *divmod(DEFAULT_CDROM_INDEX, per_bus))
    occupied = place in {(drive.interface, drive.bus, drive.unit) for drive in line.drives}
    if occupied or not _INSTEAD_OF_CDROM & {one.arguments.get("driver") for one in added}:
        return ()
    return (Option("drive", f"if={interface},index={DEFAULT_CDROM_INDEX},media=cdrom"),)


def _suppressed(line: CommandLine, flag: str | None, drivers: set[str]) -> bool:
    named = {device.driver for device in line.devices} | {_of_global(one) for one in line.flags("global")}
    return bool(line.flags("nodefaults") or (flag and line.flags(flag)) or named & drivers)


def _of_global(one: Option) -> str:
    """The driver of `-global driver.property=value` or `-global driver=...,property=...`."""
    value = one.value or ""
    if value.startswith("driver="):
        return one.arguments.get("driver") or ""
    return value.partition(".")[0]
