"""A disk of a libvirt domain comes behind the path handler of its host, and back: then the domain moves by itself.

For a running domain libvirt's managed save is used: its memory goes to the host's disk and back, with another
description of the disk in between. The image is not copied.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

from qemu_esd import devices
from qemu_esd.errors import EsdError, RefusedError, UsageError
from qemu_esd.hosts import files, qemu_img
from qemu_esd.hosts.base import Host
from qemu_esd.hypervisors.libvirt import sharing
from qemu_esd.hypervisors.libvirt.connection import SOCKETS, Connection, open_libvirt
from qemu_esd.hypervisors.libvirt.domain import Domain, DomainDisk
from qemu_esd.model import device
from qemu_esd.model.device import DeviceRecord
from qemu_esd.model.device_request import DeviceRequest
from qemu_esd.model.disk import Image
from qemu_esd.model.policy import Handler
from qemu_esd.model.suid import suid_of
from qemu_esd.phases import device_make
from qemu_esd.phases.device_daemons import Crew

FORMATS = ("raw", "qcow2")


@dataclass(frozen=True)
class Target:
    """What is to be changed: a disk of a domain, on the libvirt of a host. `device`: the SUID it is, or will be."""

    connection: Connection
    host: str
    domain: Domain
    disk: DomainDisk
    device: str
    definition: str

    @property
    def name(self) -> str:
        return self.domain.configuration.name

    @property
    def runs(self) -> bool:
        return self.domain.state in ("running", "paused")


async def find(crew: Crew, stack: AsyncExitStack, host: str, name: str, disk: str | None) -> Target:
    """Raises RefusedError, UsageError."""
    connection = await stack.enter_async_context(open_libvirt(await crew.hosts.get(host)))
    domain = await connection.domain(name)
    if domain is None:
        raise RefusedError(f"its libvirt has no domain {name}", host=host, hint="virsh list --all")
    chosen = _chosen(domain, disk)
    definition = await sharing.description(connection, name)
    known = sharing.device_of(definition, chosen.target)
    suid = known or suid_of(name, chosen.target, serial=chosen.serial, wwn=chosen.wwn)
    return Target(connection, host, domain, chosen, suid, definition)


def _chosen(domain: Domain, disk: str | None) -> DomainDisk:
    """The disk of that name, or the only one. Raises UsageError."""
    disks = [each for each in domain.configuration.disks if each.device == "disk" and not each.read_only]
    found = [each for each in disks if disk in (None, each.target)]
    if len(found) != 1:
        what = f"has no disk {disk}" if disk else f"has {len(disks)} disks"
        hint = f"name one: {', '.join(each.target for each in disks) or 'there is none'}"
        raise UsageError(f"{domain.configuration.name} {what}", hint=hint)
    return found[0]


def remarks(target: Target) -> list[str]:
    """What is said beforehand, and keeps nobody from it."""
    doubts = target.domain.configuration.doubts("a shared disk", "/run/qemu-esd/device", "*")
    return [f"{target.name}: {doubt}" for doubt in doubts]


async def check(crew: Crew, target: Target) -> tuple[Image, ...]:
    """The images of the disk, top first. Raises RefusedError for what cannot be shared, and says why."""
    domain, disk = target.domain, target.disk
    for reason in _obstacles(target):
        raise RefusedError(f"{target.name}: {reason}", host=target.host, hint=f"virsh dumpxml {target.name} shows it")
    host = await crew.hosts.get(target.host)
    direct = disk.cache in (None, "none", "directsync")
    chain = [Image(layer.place, layer.format or "", direct) for layer in disk.chain]
    while chain and not domain_tells(domain) and (below := await _backing(host, chain[-1])) is not None:
        chain.append(below)
    return tuple(chain)


def domain_tells(domain: Domain) -> bool:
    """Whether libvirt knows a chain to its end: as long as the guest runs."""
    return domain.state in ("running", "paused")


async def _backing(host: Host, image: Image) -> Image | None:
    """What a header says is below, format and all. Raises RefusedError for a format that would have to be guessed."""
    if image.format == "raw":
        return None
    facts = await qemu_img.info(host, image.path, image.format)
    path = facts.get("full-backing-filename")
    if path is None:
        return None
    format = facts.get("backing-filename-format")
    if format not in FORMATS:
        hint = f"say it: qemu-img rebase -u -F FORMAT -b {path} {image.path}"
        raise RefusedError(f"{image.path} does not say the format of what is below it", hint=hint)
    return Image(str(path), str(format), image.direct)


def _obstacles(target: Target) -> list[str]:
    domain, disk = target.domain, target.disk
    found = []
    if sharing.device_of(target.definition, disk.target):
        found.append(f"{disk.target} is shared already")
    elif disk.chain[0].kind != "file":
        found.append(f"{disk.target} is no image file of this host")
    elif disk.shareable:
        found.append(f"{disk.target} is <shareable/>: other guests may write to it")
    if any(layer.kind != "file" or layer.format not in FORMATS for layer in disk.chain):
        found.append(f"a layer of {disk.target} is neither a raw nor a qcow2 file")
    if not domain.persistent:
        found.append("it is not persistent, so it has no definition to come back from")
    for count, what in ((domain.snapshots, "snapshots"), (domain.checkpoints, "checkpoints")):
        if count:
            found.append(f"its {what} name the image")
    if domain.state not in ("running", "paused", "shut off"):
        found.append(f"it is {domain.state}")
    return found


@dataclass(frozen=True)
class Wanted:
    """`others`: the hosts to which the domain may move."""

    others: tuple[str, ...]
    policy: Handler
    owner: str = ""


async def share(crew: Crew, target: Target, wanted: Wanted, tell: Callable[[str], None]) -> DeviceRecord:
    """Raises RefusedError with nothing touched; any later error after all was put back as it was."""
    chain = await check(crew, target)
    host = await crew.hosts.get(target.host)
    size = await qemu_img.virtual_size(host, chain[0].path, chain[0].format)
    order = DeviceRequest(target.device, (target.host, *wanted.others), size, chain, wanted.policy, wanted.owner)
    await device_make.check(crew, order)

    def change(xml: str) -> str:
        paths = record.seats[0].paths
        return sharing.shared(xml, target.disk.target, record.suid, device.socket(paths, record.suid))

    if target.runs:
        tell(f"{target.name} stops, and its memory goes to the disk of {target.host}")
        await sharing.save(target.connection, target.name)
    try:
        record = await devices.create(crew, order)
    except BaseException:
        # Of the device nothing is left: if there is one, somebody else was quicker.
        await _put_back(crew, target, None)
        raise
    try:
        await _bring(target, change)
    except BaseException:
        await _put_back(crew, target, record)
        raise
    return record


async def _bring(target: Target, change: sharing.Change) -> None:
    """The domain with another description; it runs if it ran."""
    if target.runs:
        await sharing.change_saved(target.connection, target.name, change)
    await sharing.define(target.connection, target.name, change(target.definition))
    if target.runs:
        await sharing.start(target.connection, target.name)


async def _put_back(crew: Crew, target: Target, made: DeviceRecord | None) -> None:
    """As it was, the definition first: from it, and not from what we remember, a kill in here leaves a domain that
    starts. The saved guest may have been read already, then there is none to be changed."""
    top = target.disk.chain[0]
    image = Image(top.place, top.format or "raw")
    await sharing.define(target.connection, target.name, target.definition)
    if made is not None:
        with suppress(EsdError):
            await devices.delete(crew, made.suid, target.host, keep_image=True)
    if not target.runs:
        return

    def change(xml: str) -> str:
        if sharing.device_of(xml, target.disk.target) is None:
            return xml
        return sharing.given_back(xml, target.disk.target, image)

    await sharing.change_saved(target.connection, target.name, change)
    await sharing.start(target.connection, target.name)


async def undo(crew: Crew, target: Target, tell: Callable[[str], None]) -> Image:
    """The domain gets the image itself, which must be whole on its host. Returns it."""
    if sharing.device_of(target.definition, target.disk.target) is None:
        what = f"{target.disk.target} of {target.name} is not shared"
        raise RefusedError(what, host=target.host, hint=f"qemu-esd share {target.name} {target.disk.target}")
    if not target.domain.persistent:
        what = f"{target.name} is not persistent, as libvirt leaves it behind a plain move, and cannot be saved"
        hint = f"virsh dumpxml {target.name} >{target.name}.xml; virsh define {target.name}.xml; then the same again"
        raise RefusedError(what, host=target.host, hint=hint)
    record = await devices.find(crew, target.device, target.host)
    _check_here(record, target)
    if target.runs:
        tell(f"{target.name} stops, and its memory goes to the disk of {target.host}")
        await sharing.save(target.connection, target.name)
    # A kill from here on: the domain is shut off, its memory saved; the same command again, or `device restore`.
    await devices.delete(crew, target.device, target.host, keep_image=True)
    await _bring(target, lambda xml: sharing.given_back(xml, target.disk.target, record.top))
    return record.top


def _check_here(record: DeviceRecord, target: Target) -> None:
    if record.authority != target.host or record.move is not None:
        hint = f"qemu-esd device move {record.suid} {target.host}"
        raise RefusedError(f"the data of {record.suid} is on {record.authority}", host=target.host, hint=hint)
    if not record.is_whole:
        what = f"{record.suid} still reads from another host"
        raise RefusedError(what, host=target.host, hint=f"qemu-esd device settle {record.suid}")
    if record.left:
        what = f"{record.suid} has images put aside on {', '.join(one.host for one in record.left)}"
        raise RefusedError(what, host=target.host, hint=f"qemu-esd device release {record.suid}")


async def attach(crew: Crew, suid: str, host: str, name: str) -> str | None:
    """A device becomes one more disk of a domain. Returns what libvirt calls it; None where there is no such domain."""
    record, there = await devices.find(crew, suid, host), await crew.hosts.get(host)
    if not await files.existing(there, *SOCKETS):
        return None
    async with open_libvirt(there) as connection:
        domain = await connection.domain(name)
        if domain is None:
            return None
        target = sharing.free_target(await sharing.description(connection, name))
        xml = sharing.new_disk(suid, device.socket(record.seat(host).paths, suid), target)
        await sharing.attach(connection, name, xml, running=domain.state in ("running", "paused"))
    return target
