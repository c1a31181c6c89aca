"""A running QEMU described as a guest: what its command line says, what its monitor says, what our record says."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any

from qemu_esd.errors import RefusedError
from qemu_esd.graph import names
from qemu_esd.hypervisors.cmdline.carried import Place
from qemu_esd.hypervisors.cmdline.facts import BlockUse, CommandLine
from qemu_esd.hypervisors.cmdline.monitors import is_libvirts
from qemu_esd.hypervisors.cmdline.reader import read
from qemu_esd.model.disk import Chain, Disk, Image
from qemu_esd.model.host import HostPaths, guest_sockets
from qemu_esd.model.record import DiskRecord, GuestRecord
from qemu_esd.model.suid import suid_of
from qemu_esd.model.vm import Guest, QemuProcess
from qemu_esd.qmp import blockdev, machine
from qemu_esd.qmp.session import Session

FORMATS = ("raw", "qcow2")


def monitor_of(host: str, process: QemuProcess, paths: HostPaths) -> str:
    """The QMP socket to use: our own control socket where there is one, else the first that the user made."""
    return _monitor(host, process, guest_sockets(paths, process.name).control)


def observer_of(host: str, process: QemuProcess, paths: HostPaths) -> str:
    """The QMP socket to look through: our own observe socket where there is one, else the first that the user made."""
    return _monitor(host, process, guest_sockets(paths, process.name).observe)


def user_of(host: str, process: QemuProcess, paths: HostPaths) -> str:
    """The QMP socket for ad hoc commands: our own user socket where there is one, else the first that the user made."""
    return _monitor(host, process, guest_sockets(paths, process.name).user)


def _monitor(host: str, process: QemuProcess, ours: str) -> str:
    line = read(process.argv)
    if is_libvirts(line.options):
        # Also where it has a second monitor: libvirt would not know what becomes of its domain.
        what = f"{process.name} is a domain of libvirt, which holds its monitor"
        raise RefusedError(what, host=host, hint="use libvirt's own tools: virsh, virt-manager")
    sockets = [
        posixpath.join(process.cwd, monitor.address)
        for monitor in line.monitors
        if monitor.kind == "qmp" and monitor.transport == "unix" and monitor.server
    ]
    if not sockets:
        raise RefusedError(
            f"{process.name} has no QMP socket",
            host=host,
            hint="start it with: -qmp unix:/run/NAME.qmp,server=on,wait=off",
        )
    return ours if ours in sockets else sockets[0]


async def describe(process: QemuProcess, session: Session, record: GuestRecord | None) -> Guest:
    """The guest behind an open monitor. Raises RefusedError for a disk that cannot be understood."""
    line = read(process.argv)
    rows = await blockdev.devices(session)
    disks = [await _disk(session, process, use, _row(use, rows), record) for use in _movable(line)]
    return Guest(
        host=session.host,
        process=process,
        monitor=session.monitor,
        uuid=await machine.uuid(session),
        version=await machine.version(session),
        machine_type=await machine.current_machine_type(session),
        memory=await machine.memory_size(session),
        generation=record.generation if record else 0,
        ours=record is not None,
        disks=tuple(disks),
        migration=record.migration if record else None,
        upstream=record.upstream if record else (),
        left_behind=record.left_behind if record else (),
    )


def _movable(line: CommandLine) -> list[BlockUse]:
    """The disks that hold data of this host: no media that are read-only, empty, or on a network already."""
    kept = [use for use in line.blocks if not use.read_only and not (use.drive and use.drive.cdrom)]
    return [use for use in kept if (use.path or _is_ours(use)) and _is_disk(use)]


def _is_ours(use: BlockUse) -> bool:
    return use.node is not None and use.node.name.startswith("esd-")


def _is_disk(use: BlockUse) -> bool:
    return not (use.drive and use.drive.interface in ("pflash", "floppy", "sd", "mtd"))


def _row(use: BlockUse, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What `query-block` says of this device: found by the device's id, the drive's id, or the node."""
    for row in rows:
        if _means(use, row):
            return row
    raise RefusedError(f"the disk {use.name} is not in the running QEMU", hint="was it unplugged? see query-block")


def _means(use: BlockUse, row: dict[str, Any]) -> bool:
    device = use.device.id if use.device else None
    qdev = str(row.get("qdev", ""))
    if device and (qdev == device or qdev.startswith(f"/machine/peripheral/{device}/")):
        return True
    if use.drive and row["device"] == use.drive.id:
        return True
    node = str(row.get("inserted", {}).get("node-name", ""))
    return use.node is not None and not device and _stem(node) == _stem(use.node.name)


def _stem(node: str) -> str:
    """A node of ours without its role: a change of handler puts another role under the device."""
    return node.rsplit("-", 1)[0] if node.startswith("esd-") else node


async def _disk(
    session: Session, process: QemuProcess, use: BlockUse, row: dict[str, Any], record: GuestRecord | None
) -> Disk:
    inserted = _inserted(session.host, use.name, row)
    facts = await device_facts(session, blockdev.device_path(str(row["qdev"])))
    known = _known(use, record)
    suid = known.suid if known else suid_of(process.name, use.name, serial=facts.serial, wwn=facts.wwn)
    node, size = str(inserted["node-name"]), int(inserted["image"]["virtual-size"])
    return Disk(
        id=known.id if known else use.name,
        suid=suid,
        qdev=blockdev.device_path(str(row["qdev"])),
        driver=facts.driver,
        drive=_drive_name(use),
        node=node,
        overlay=names.overlay(suid, known.level) if known and node == names.copy_on_read(suid) else node,
        size=size,
        logical_block=facts.logical_block,
        serial=facts.serial,
        chain=(*known.chain, *known.base) if known else _chain(session.host, use.name, process.cwd, inserted),
        data=known.data if known and known.handler else min(size, allocated(inserted["image"])),
        corrupt=is_corrupt(inserted["image"]),
        read_errors=facts.read_errors,
    )


def allocated(image: dict[str, Any] | None) -> int:
    """Bytes that the images of a chain take on their disks."""
    total = 0
    while image is not None:
        total += int(image.get("actual-size", 0))
        image = image.get("backing-image")
    return total


def is_corrupt(image: dict[str, Any]) -> bool:
    return bool(image.get("format-specific", {}).get("data", {}).get("corrupt", False))


def _inserted(host: str, disk: str, row: dict[str, Any]) -> dict[str, Any]:
    """The medium of a disk. QEMU ejects an image in which it finds damage."""
    if "inserted" not in row:
        what = f"the disk {disk} has no image any more: QEMU has found it corrupt, or it was ejected"
        raise RefusedError(what, host=host, hint="shut the guest off, then mend the image with: qemu-img check -r all")
    return dict(row["inserted"])


def _known(use: BlockUse, record: GuestRecord | None) -> DiskRecord | None:
    """What our record says of this disk, if anything."""
    if record is None:
        return None
    for disk in record.disks:
        if disk.id == use.name or (use.node and _stem(use.node.name) == _stem(names.overlay(disk.suid))):
            return disk
    return None


def _drive_name(use: BlockUse) -> str:
    if use.drive:
        return use.drive.id
    assert use.node is not None
    return use.node.name


@dataclass(frozen=True)
class DeviceFacts:
    driver: str
    logical_block: int
    serial: str | None
    wwn: str | None
    read_errors: str


async def device_facts(session: Session, qdev: str) -> DeviceFacts:
    """What the guest sees of a disk, from the device itself."""
    present = {row["name"] for row in await session.execute("qom-list", path=qdev)}

    async def get(name: str) -> Any:
        return await machine.property(session, qdev, name) if name in present else None

    wwn = await get("wwn")
    return DeviceFacts(
        driver=str(await get("type")),
        logical_block=int(await get("logical_block_size") or 512),
        serial=await get("serial") or None,
        wwn=f"{wwn:016x}" if wwn else None,
        read_errors=str(await get("rerror") or "auto"),
    )


def _chain(host: str, disk: str, cwd: str, inserted: dict[str, Any]) -> Chain:
    """The images under a disk, as the running QEMU has them open."""
    layers: list[Image] = []
    image = inserted["image"]
    while image is not None:
        name, format = str(image["filename"]), str(image["format"])
        if format not in FORMATS or name.startswith("json:") or "://" in name:
            raise RefusedError(
                f"the disk {disk} has a layer that cannot be moved: {format} {name}",
                host=host,
                hint="raw and qcow2 image files without filters can",
            )
        if image.get("format-specific", {}).get("data", {}).get("data-file"):
            what = f"the disk {disk} has its data in another file than {name}"
            raise RefusedError(what, host=host, hint="qemu-img convert makes one file of them, guest off")
        layers.append(Image(posixpath.join(cwd, name), format, bool(inserted["cache"]["direct"])))
        image = image.get("backing-image")
    return tuple(layers)


async def place(session: Session, disk: Disk) -> Place:
    """Where a disk sits, for a command line that does not say it (-hda, -drive if=virtio)."""
    path = disk.qdev.removesuffix("/virtio-backend")
    present = {row["name"] for row in await session.execute("qom-list", path=path)}
    bus = str(await machine.property(session, path, "parent_bus")).rsplit("/", 1)[-1]
    driver = str(await machine.property(session, path, "type"))
    addr = unit = None
    if "addr" in present:
        slot = int(await machine.property(session, path, "addr"))
        addr = f"{slot >> 3:x}.{slot & 7:x}"
    elif "unit" in present:
        unit = str(await machine.property(session, path, "unit"))
    return Place(driver, bus, addr, unit)
