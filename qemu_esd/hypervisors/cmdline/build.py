"""The command line of a bare guest. A q35 without any device that was not asked for, so that it can be repeated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

from qemu_esd.hypervisors.cmdline import options as cmdline_options
from qemu_esd.hypervisors.cmdline.disk_spec import OWN_IDS, GuestDisk
from qemu_esd.hypervisors.cmdline.keyval import keyval, parse
from qemu_esd.hypervisors.cmdline.options import Option, option
from qemu_esd.hypervisors.cmdline.sockets import Console, QmpSocket, console_option, monitor_options
from qemu_esd.hypervisors.cmdline.spec import GuestSpec, Nic, check_spec

SCSI_CONTROLLER = f"{OWN_IDS}scsi"


def bare_argv(
    spec: GuestSpec,
    *,
    binary: str,
    machine_type: str,
    accel: str,
    monitors: Sequence[QmpSocket],
    console: Console,
) -> tuple[str, ...]:
    """The argv of a bare guest. Raises UsageError if the words of `spec` do not go together.

    `machine_type` is a versioned q35 ("pc-q35-7.2"): the guest keeps it wherever it goes. Sockets are made by
    QEMU, in folders that are there.
    """
    check_spec(spec)
    made = (
        *_machine(spec, machine_type, accel),
        *(Option(flag, value) for flag, value in _boot(spec).items() if value is not None),
        *(one for socket in monitors for one in monitor_options(socket)),
        console_option(console),
        Option("serial", f"chardev:{console.id}"),
        *(one for number, nic in enumerate(spec.nics) for one in _nic(spec, number, nic)),
        *_disks(spec.disks),
    )
    return (*cmdline_options.join(binary, made), *spec.extra)


def _machine(spec: GuestSpec, machine_type: str, accel: str) -> Iterator[Option]:
    yield Option("name", keyval({"guest": spec.name}))
    yield Option("machine", machine_type)
    yield Option("accel", accel)
    yield from (Option(flag) for flag in ("nodefaults", "no-user-config"))
    yield Option("display", "none")
    yield Option("m", keyval({"size": f"{spec.memory >> 10}k"}))
    yield Option("smp", str(spec.smp))


def _boot(spec: GuestSpec) -> dict[str, str | None]:
    return {
        "uuid": spec.uuid,
        "cpu": spec.cpu,
        "kernel": spec.kernel,
        "initrd": spec.initrd,
        "append": spec.append,
        "bios": spec.firmware,
    }


def _nic(spec: GuestSpec, number: int, nic: Nic) -> tuple[Option, Option]:
    link, card = f"{OWN_IDS}net{number}", f"{OWN_IDS}nic{number}"
    mac = nic.mac or derived_mac(spec.uuid or spec.name, number)
    return (
        option("netdev", parse(nic.netdev, "type").with_value("id", link)),
        _json("device", {"driver": nic.model, "id": card, "netdev": link, "mac": mac}),
    )


def derived_mac(guest: str, number: int) -> str:
    """A MAC address that differs between guests; QEMU's default is the same for all of them."""
    digest = hashlib.sha256(f"{guest} {number}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x52, 0x54, 0x00, *digest[:3]))


def _disks(disks: Sequence[GuestDisk]) -> Iterator[Option]:
    yield from (_json("blockdev", block_node(disk)) for disk in disks)
    if any(disk.bus == "scsi" for disk in disks):
        yield _json("device", {"driver": "virtio-scsi-pci", "id": SCSI_CONTROLLER})
    counts = {"scsi": 0, "ide": 0, "virtio": 0, "nvme": 0}
    for disk in disks:
        yield _json("device", block_device(disk, counts[disk.bus]))
        counts[disk.bus] += 1


def block_node(disk: GuestDisk) -> dict[str, object]:
    """The -blockdev of a disk. The backing chain of a qcow2 is the one its header names."""
    cache = {"direct": disk.cache == "none", "no-flush": False}
    driver = "host_device" if disk.path.startswith("/dev/") else "file"
    return {
        "driver": disk.format,
        "node-name": disk.node_name,
        "read-only": disk.read_only,
        "discard": disk.discard,
        "cache": cache,
        "file": {"driver": driver, "filename": disk.path, "aio": "threads", "cache": cache},
    }


def block_device(disk: GuestDisk, number: int) -> dict[str, object]:
    """The -device of a disk; `number` counts the disks before it on the same bus."""
    where: dict[str, dict[str, object]] = {
        "virtio": {"driver": "virtio-blk-pci"},
        "scsi": {"driver": "scsi-hd", "bus": f"{SCSI_CONTROLLER}.0", "scsi-id": number},
        "nvme": {"driver": "nvme"},
        "ide": {"driver": "ide-hd", "bus": f"ide.{number}"},
    }
    serial = disk.serial or (disk.id[:20] if disk.bus == "nvme" else None)  # an nvme must have one
    sizes = dict.fromkeys(("logical_block_size", "physical_block_size"), disk.logical_block_size)
    return {
        **where[disk.bus],
        "id": disk.id,
        "drive": disk.node_name,
        **({"serial": serial} if serial else {}),
        **({"wwn": int(disk.wwn, 16)} if disk.wwn else {}),
        **(sizes if disk.logical_block_size != 512 else {}),
        **({"write-cache": "off"} if disk.cache == "writethrough" else {}),
    }


def _json(flag: str, value: Mapping[str, object]) -> Option:
    return Option(flag, json.dumps(dict(value), ensure_ascii=False))
