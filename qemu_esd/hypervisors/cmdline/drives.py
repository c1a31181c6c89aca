"""-drive and the options that stand for one. Follows drive_new() in QEMU's blockdev.c."""

from __future__ import annotations

import json
from collections.abc import Sequence

from qemu_esd.hypervisors.cmdline import keyval
from qemu_esd.hypervisors.cmdline.facts import DEFAULT_MACHINE, Drive
from qemu_esd.hypervisors.cmdline.keyval import Arguments
from qemu_esd.hypervisors.cmdline.nodes import local_path
from qemu_esd.hypervisors.cmdline.options import Option

# flag: (if=, index=, media=); the value is a file name as it stands, commas included.
SHORTHANDS: dict[str, dict[str, str]] = {
    "hda": {"index": "0"},
    "hdb": {"index": "1"},
    "hdc": {"index": "2"},
    "hdd": {"index": "3"},
    "cdrom": {"index": "2", "media": "cdrom"},
    "fda": {"if": "floppy", "index": "0"},
    "fdb": {"if": "floppy", "index": "1"},
    "sd": {"if": "sd"},
    "mtdblock": {"if": "mtd"},
    "pflash": {"if": "pflash"},
}

DEFAULT_CDROM_INDEX = 2

_LIMITS = ("throttling.", "iops", "bps", "group")


def default_interface(machine_type: str | None) -> str:
    """The `if=` of a drive that names none: MachineClass.block_default_type."""
    return "none" if (machine_type or DEFAULT_MACHINE).startswith(("microvm", "none")) else "ide"


def units_per_bus(interface: str, machine_type: str | None) -> int:
    """How many drives one bus of the interface takes; 0 if there is one bus only."""
    q35 = "q35" in (machine_type or DEFAULT_MACHINE)
    return {"ide": 1 if q35 else 2, "scsi": 7}.get(interface, 0)


def read_drives(options: Sequence[Option], machine_type: str | None) -> tuple[Drive, ...]:
    """All drives in the order in which QEMU makes them."""
    drives: list[Drive] = []
    taken: set[tuple[str, int, int]] = set()
    for at, option in enumerate(options):
        if option.flag == "drive" or option.flag in SHORTHANDS:
            drive = _drive(at, as_drive(option), machine_type, taken)
            taken.add((drive.interface, drive.bus, drive.unit))
            drives.append(drive)
    return tuple(drives)


def as_drive(option: Option) -> Arguments:
    """The arguments of the -drive that an option is or stands for."""
    if option.flag == "drive":
        return option.arguments
    return Arguments((*SHORTHANDS[option.flag].items(), ("file", option.value or "")))


def _drive(at: int, given: Arguments, machine_type: str | None, taken: set[tuple[str, int, int]]) -> Drive:
    interface = given.get("if") or default_interface(machine_type)
    cdrom = given.get("media") == "cdrom"
    bus, unit = _position(given, interface, units_per_bus(interface, machine_type), taken)
    return Drive(
        at=at,
        id=given.get("id") or _made_id(interface, cdrom, bus, unit, units_per_bus(interface, machine_type)),
        interface=interface,
        bus=bus,
        unit=unit,
        placed=given.has("index", "unit"),
        path=_path(given),
        format=given.get("format") or given.get("driver"),
        node_name=given.get("node-name"),
        cdrom=cdrom,
        read_only=cdrom or given.is_on("readonly") or given.is_on("read-only"),
        snapshot=given.is_on("snapshot"),
        write_cache=given.is_on("cache.writeback", given.get("cache") not in ("writethrough", "directsync")),
        rerror=given.get("rerror"),
        werror=given.get("werror"),
        limits=tuple(key for key, _ in given.leaves() if key.startswith(_LIMITS)),
    )


def _position(given: Arguments, interface: str, per_bus: int, taken: set[tuple[str, int, int]]) -> tuple[int, int]:
    index, bus, unit = (int(given.get(key) or "-1", 0) for key in ("index", "bus", "unit"))
    if given.has("index"):
        return divmod(index, per_bus) if per_bus else (0, index)
    bus, unit = max(bus, 0), max(unit, 0) if given.has("unit") else -1
    if unit >= 0:
        return bus, unit
    unit = 0
    while (interface, bus, unit) in taken:
        unit += 1
        if per_bus and unit >= per_bus:
            bus, unit = bus + 1, 0
    return bus, unit


def _made_id(interface: str, cdrom: bool, bus: int, unit: int, per_bus: int) -> str:
    media = ("-cd" if cdrom else "-hd") if interface in ("ide", "scsi") else ""
    return f"{interface}{bus}{media}{unit}" if per_bus else f"{interface}{media}{unit}"


def _path(given: Arguments) -> str | None:
    file = given.get("file")
    if file is None:
        return local_path(keyval.nested(given.leaves()))
    if file.startswith("json:"):
        tree = json.loads(file.removeprefix("json:"))
        return local_path(tree) if isinstance(tree, dict) else None
    return local_path({"driver": given.get("file.driver") or "file", "filename": file})
