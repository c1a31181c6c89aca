"""Model facts that tests start from; each says only what its test is about."""

from __future__ import annotations

from dataclasses import replace

from qemu_esd.model.disk import Disk, Image, Link, UnixPath
from qemu_esd.model.host import HostPaths
from qemu_esd.model.plan import DiskPlan, Plan, Site, Transport
from qemu_esd.model.policy import Handler
from qemu_esd.model.vm import Guest, QemuProcess

MIB = 1 << 20
PATHS = HostPaths("/var/lib/qemu-esd", "/run/qemu-esd")


def disk(id: str = "root", suid: str | None = None) -> Disk:
    """A raw disk of 64 MiB, 8 MiB of it data."""
    return Disk(
        id=id,
        suid=suid or id,
        qdev=id,
        driver="virtio-blk-pci",
        drive=id,
        node=id,
        overlay=id,
        size=64 * MIB,
        logical_block=512,
        serial=id,
        chain=(Image(f"/images/{id}", "raw"),),
        data=8 * MIB,
    )


def guest(*disks: Disk, name: str = "vm") -> Guest:
    """A guest on host "a" that somebody else started."""
    return Guest(
        host="a",
        process=QemuProcess(100, name, ("qemu-system-x86_64", "-name", name), "/"),
        monitor="/run/vm.qmp",
        uuid="0",
        version=(7, 2, 0),
        machine_type="pc-q35-7.2",
        memory=256 * MIB,
        generation=0,
        ours=False,
        disks=disks,
    )


def plan(id: str = "0badcafe", vm: str = "vm") -> Plan:
    """One disk from host "a" to host "b"."""
    root = disk()
    link = Link(UnixPath("/run/nbd.sock"), "esd-1")
    member = DiskPlan(root, Handler.BACKGROUND, "esd-1", link, Image("/b/root.qcow2", "qcow2"))
    return Plan(
        id=id,
        guest=guest(root, name=vm),
        source=Site("a", PATHS, "192.0.2.1"),
        target=Site("b", PATHS, "192.0.2.2"),
        transport=Transport.SSH,
        nbd_port=49800,
        ram_port=49801,
        generation=1,
        disks=(member,),
        target_argv=("qemu-system-x86_64",),
    )


def with_argv(of: Plan, *argv: str) -> Plan:
    return replace(of, target_argv=argv)
