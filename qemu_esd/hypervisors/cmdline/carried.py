"""What goes into carrying a command line to another host, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from qemu_esd.hypervisors.cmdline.options import Option
from qemu_esd.hypervisors.cmdline.sockets import Console, QmpSocket


@dataclass(frozen=True)
class Place:
    """Where a disk sits that has no -device of its own (-hda, -drive if=virtio): what the running QEMU says of it.

    `driver` as in "ide-hd" or "virtio-blk-pci", `bus` as in "ide.0" or "pci.0", `addr` on PCI, `unit` on IDE.
    """

    driver: str
    bus: str
    addr: str | None = None
    unit: str | None = None


@dataclass(frozen=True)
class DiskSwap:
    """A disk that gets other block nodes on the target.

    `source` is its drive id, node name or device id on the source; `nodes` the -blockdev arguments in the order
    of making; `node` the name that becomes the device's drive=. `rerror` and `werror` overrule what the source
    had; None keeps it. `device_id` is given to a device without an id, unless it makes a bus, which would be
    renamed with it (usb-storage). `place` is needed without a -device.
    """

    source: str
    nodes: tuple[Mapping[str, object], ...]
    node: str
    device_id: str | None = None
    rerror: str | None = None
    werror: str | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Target:
    """What the target's QEMU gets from us.

    `machine_type` is the versioned name that the running QEMU answers (never an alias, which another QEMU may
    read otherwise). `binary` and `accel` of None keep the source's. `extra` words go to the end. `shared` names
    writable disks that are on storage both hosts have: they stay as they are.
    """

    machine_type: str
    monitors: tuple[QmpSocket, ...]
    console: Console
    binary: str | None = None
    accel: str | None = None
    extra: tuple[str, ...] = ()
    shared: frozenset[str] = frozenset()


@dataclass(frozen=True)
class NeededPath:
    """A file or folder that must be on the target, and the option that wants it."""

    path: str
    kind: Literal["file", "folder"]
    option: str


@dataclass(frozen=True)
class Carried:
    """The target's `argv`, good only if there are no `problems` (each names an option that cannot be carried).

    `remarks` say what will be otherwise there without the guest noticing. `files` must be there beforehand.
    """

    argv: tuple[str, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    files: tuple[NeededPath, ...]


@dataclass(frozen=True)
class Step:
    """Options after one step of carrying, and what the step found."""

    options: tuple[Option, ...]
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
