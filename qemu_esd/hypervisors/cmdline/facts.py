"""What a QEMU command line says, as plain facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qemu_esd.hypervisors.cmdline.keyval import Arguments
from qemu_esd.hypervisors.cmdline.options import Option

DEFAULT_MACHINE = "pc"
DEFAULT_MEMORY = 128 << 20


@dataclass(frozen=True)
class Monitor:
    """A monitor of the QEMU. `address` is the path of a unix socket, "host:port", or whatever was written."""

    kind: Literal["qmp", "hmp"]
    transport: Literal["unix", "tcp", "other"]
    address: str
    server: bool  # QEMU listens; a client can come


@dataclass(frozen=True)
class Drive:
    """A -drive, or an option that stands for one (-hda, -cdrom, -pflash ...).

    `at` is its place in the options, `id` the one given or the one that QEMU makes up, `interface` the `if=`,
    `bus` and `unit` the position QEMU gives it (`placed`: the position is written out). `path` is the local
    file, folder or block device that holds the data: None for an empty drive and for one on the network.
    """

    at: int
    id: str
    interface: str
    bus: int
    unit: int
    placed: bool
    path: str | None
    format: str | None
    node_name: str | None
    cdrom: bool
    read_only: bool
    snapshot: bool
    write_cache: bool
    rerror: str | None
    werror: str | None
    limits: tuple[str, ...]  # throttling keys: they belong to the drive, not to the device


@dataclass(frozen=True)
class Node:
    """A -blockdev. `names`: the node names it makes, its own first; `below`: those of the nodes it refers to."""

    at: int
    name: str
    driver: str
    format: str | None
    names: tuple[str, ...]
    below: tuple[str, ...]
    read_only: bool
    path: str | None  # local file of this node or of a child written in place


@dataclass(frozen=True)
class Device:
    """A -device."""

    at: int
    driver: str
    id: str | None
    arguments: Arguments

    def get(self, key: str) -> str | None:
        return self.arguments.get(key)


@dataclass(frozen=True)
class BlockUse:
    """A medium of the guest: the -drive or -blockdev that holds it, and the -device that shows it, if any."""

    drive: Drive | None
    node: Node | None
    device: Device | None
    path: str | None
    read_only: bool

    @property
    def names(self) -> frozenset[str]:
        """Every name that can mean this medium: drive id, node name, device id."""
        drive = (self.drive.id, self.drive.node_name) if self.drive else ()
        return frozenset(
            name for name in (*drive, self.node and self.node.name, self.device and self.device.id) if name is not None
        )

    @property
    def name(self) -> str:
        """The name for messages."""
        if self.device and self.device.id:
            return self.device.id
        return self.drive.id if self.drive else self.node.name if self.node else "?"


@dataclass(frozen=True)
class CommandLine:
    """A QEMU command line. `memory` in bytes; `machine_type` as written; `accel` all of them, by colons."""

    binary: str
    options: tuple[Option, ...]
    name: str | None
    uuid: str | None
    machine_type: str | None
    accel: str | None
    memory: int
    cpus: int
    cpu: str | None
    monitors: tuple[Monitor, ...]
    drives: tuple[Drive, ...]
    nodes: tuple[Node, ...]
    devices: tuple[Device, ...]
    blocks: tuple[BlockUse, ...]

    def flags(self, *names: str) -> tuple[Option, ...]:
        """The options with one of these flags, in order."""
        return tuple(option for option in self.options if option.flag in names)

    def find(self, name: str) -> BlockUse | None:
        """The medium that a drive id, node name or device id means."""
        return next((use for use in self.blocks if name in use.names), None)
