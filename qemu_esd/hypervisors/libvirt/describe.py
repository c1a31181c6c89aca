"""A running domain described as a guest: what libvirt says, what its QEMU says, what our record says."""

from __future__ import annotations

from typing import Any

from qemu_esd.errors import RefusedError
from qemu_esd.hypervisors import bare
from qemu_esd.hypervisors.libvirt.domain import Domain, DomainDisk, Layer
from qemu_esd.model.disk import Chain, Disk, Image
from qemu_esd.model.record import DiskRecord, GuestRecord
from qemu_esd.model.suid import suid_of
from qemu_esd.model.vm import Guest, Kind, QemuProcess
from qemu_esd.qmp import blockdev, machine
from qemu_esd.qmp.session import Session


async def describe(process: QemuProcess, session: Session, record: GuestRecord | None, domain: Domain) -> Guest:
    """The guest. Raises RefusedError for a disk that cannot be understood."""
    rows, nodes = await blockdev.devices(session), await blockdev.named(session)
    local = [disk for disk in domain.configuration.disks if disk.is_local]
    return Guest(
        host=session.host,
        process=process,
        monitor=session.monitor,
        uuid=domain.configuration.uuid,
        version=await machine.version(session),
        machine_type=await machine.current_machine_type(session),
        memory=await machine.memory_size(session),
        generation=record.generation if record else 0,
        ours=record is not None,
        disks=tuple([await _disk(session, process, disk, rows, nodes, record) for disk in local]),
        migration=record.migration if record else None,
        upstream=record.upstream if record else (),
        left_behind=record.left_behind if record else (),
        kind=Kind.DOMAIN,
    )


async def _disk(
    session: Session,
    process: QemuProcess,
    disk: DomainDisk,
    rows: list[dict[str, Any]],
    nodes: dict[str, dict[str, Any]],
    record: GuestRecord | None,
) -> Disk:
    row, known = _row(session.host, disk, rows), _known(disk, record)
    qdev = blockdev.device_path(str(row["qdev"]))
    facts = await bare.device_facts(session, qdev)
    suid = known.suid if known else suid_of(process.name, disk.target, serial=disk.serial, wwn=disk.wwn)
    overlay, *below = (_node(session.host, disk, layer, nodes) for layer in disk.chain)
    top = nodes[overlay]
    size = int(top["image"]["virtual-size"])
    # Of one that is settled, or was never moved, only the running QEMU knows: libvirt may have made snapshots since.
    moving = known if known and known.handler else None
    return Disk(
        id=disk.target,
        suid=suid,
        qdev=qdev,
        driver=facts.driver,
        drive=disk.alias or disk.target,
        node=str(row["inserted"]["node-name"]),
        overlay=overlay,
        size=size,
        logical_block=facts.logical_block,
        serial=facts.serial,
        chain=moving.chain if moving else _chain(session.host, disk, top),
        data=moving.data if moving else min(size, bare.allocated(top["image"])),
        corrupt=bare.is_corrupt(top["image"]),
        read_errors=facts.read_errors,
        backing=below[0] if below else "",
    )


def _chain(host: str, disk: DomainDisk, top: dict[str, Any]) -> Chain:
    """The images, of which libvirt knows all, and tells QEMU: no header is trusted."""
    for layer in disk.chain:
        if layer.kind != "file" or layer.format not in bare.FORMATS:
            what = f"the disk {disk.target} has a layer that cannot be moved: {layer.kind} {layer.format} {layer.place}"
            raise RefusedError(what, host=host, hint="raw and qcow2 image files can")
    if top["image"].get("format-specific", {}).get("data", {}).get("data-file"):
        what = f"the disk {disk.target} has its data in another file than {disk.chain[0].place}"
        raise RefusedError(what, host=host, hint="qemu-img convert makes one file of them, guest off")
    return tuple(Image(layer.place, layer.format or "", bool(top["cache"]["direct"])) for layer in disk.chain)


def _node(host: str, disk: DomainDisk, layer: Layer, nodes: dict[str, dict[str, Any]]) -> str:
    """Where there is one that is not found, nobody must think that there is none."""
    found = next((name for name in layer.nodes if name in nodes), None)
    if found is None:
        what = f"libvirt and QEMU do not agree on the images of {disk.target}"
        raise RefusedError(what, host=host, hint="see: virsh dumpxml, query-named-block-nodes")
    return found


def _row(host: str, disk: DomainDisk, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What `query-block` says of this device, which libvirt has given its id."""
    for row in rows:
        qdev = str(row.get("qdev", ""))
        if "inserted" in row and (qdev == disk.alias or f"/{disk.alias}/" in f"{qdev}/"):
            return row
    what = f"the disk {disk.target} has no image any more: QEMU has found it corrupt, or it was ejected"
    raise RefusedError(what, host=host, hint="shut the guest off, then mend the image with: qemu-img check -r all")


def _known(disk: DomainDisk, record: GuestRecord | None) -> DiskRecord | None:
    return next((each for each in record.disks if each.id == disk.target), None) if record else None
