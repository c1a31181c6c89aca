"""A domain of libvirt under load: made by libvirt's own tools, asked by them, and nothing of ours."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

from images.build import KERNEL_WORDS, GuestImage
from qemu_esd.hosts.lab import LabHost
from tests.integration.support.drives import Drive
from tests.integration.support.guest import OFTEN, Guest
from tests.integration.support.machine import RUN, SRV, SSH, STATE, Machine, kill

IMAGES = "/var/lib/libvirt/images"
CONSOLE, LOG = f"{SRV}/web1.sock", f"{SRV}/web1.log"
# The buses by the first letters of what libvirt calls a disk; a bus of SCSI needs its controller.
BUSES = {"vd": "virtio", "sd": "scsi"}
LOAD = f"esd.mode=verify esd.rate=100 {OFTEN}"
# Not the memory that libvirt gives it, which is whole MiB: QEMU 7.2 loses writes to it (see MEMORY in guest.py).
XML = """<domain type="qemu" xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <name>{name}</name> <memory unit="MiB">128</memory>
  <os><type arch="x86_64" machine="q35">hvm</type>
    <kernel>{srv}/kernel</kernel> <initrd>{srv}/initrd</initrd>
    <cmdline>{kernel} {load} {options}</cmdline>
  </os>
  <features><acpi/></features> {more}
  <devices>
    <controller type="scsi" model="virtio-scsi"/>
    {disks}
    <serial type="unix"><source mode="bind" path="{console}"/><log file="{log}" append="on"/></serial>
  </devices>
  <qemu:commandline>
    <qemu:arg value="-object"/> <qemu:arg value="memory-backend-ram,id=odd,size=131080k"/>
    <qemu:arg value="-machine"/> <qemu:arg value="memory-backend=odd"/>
    <qemu:arg value="-m"/> <qemu:arg value="size=131080k"/>
  </qemu:commandline>
</domain>
"""
DISK = """<disk type="file" device="disk">
  <driver name="qemu" type="{format}" cache="none"/> <source file="{path}"/> <target dev="{id}" bus="{bus}"/>
</disk>"""


class Domain(Guest):
    """`virsh` is its host's."""

    def __init__(self, machine: Machine, drives: Sequence[Drive], name: str = "web1") -> None:
        super().__init__(name, machine, drives)
        self.foreign_console = (CONSOLE, LOG)

    async def define(
        self, image: GuestImage, others: Sequence[Machine], *, load: str = LOAD, persistent: bool = True, **more: Any
    ) -> None:
        """Make its disks, define it, and let it run; `others` are hosts to which it may move."""
        for machine in (self.machine, *others):
            for path, file in ((image.kernel, "kernel"), (image.initrd, "initrd")):
                shutil.copy(path, machine.real(f"{SRV}/{file}"))
        for drive in self.drives:
            drive.make(self.machine)
        self.machine.run("tee", f"{SRV}/{self.name}.xml", stdin=self.xml(load, **more))
        for words in ("define", "start") if persistent else ("create",):
            self.virsh(words, f"{SRV}/{self.name}.xml" if words != "start" else self.name)
        await self.settle_in(booted=True)

    def xml(self, load: str, more: str = "", disks: str = "") -> str:
        return XML.format(
            name=self.name,
            srv=SRV,
            kernel=KERNEL_WORDS,
            load=load,
            options=" ".join(drive.option for drive in self.drives),
            more=more,
            console=CONSOLE,
            log=LOG,
            disks="".join(map(disk, self.drives)) + disks,
        )

    async def starts_anew(self) -> None:
        """Its load goes on from disks with what it wrote before it last ended, of which it does not know."""
        await self.console.wait("ready")
        await self.goes_on(("err",))

    def virsh(self, *words: str, check: bool = True) -> str:
        return self.machine.run("virsh", "--quiet", *words, check=check, seconds=60).stdout.strip()

    def dumpxml(self, *flags: str) -> Element:
        """Its XML."""
        return fromstring(self.virsh("dumpxml", *flags, self.name))

    def images(self) -> dict[str, str]:
        """What `domblklist` says."""
        return dict(row.split(maxsplit=1) for row in self.virsh("domblklist", self.name).splitlines())

    def state(self) -> str:
        return self.virsh("domstate", self.name, check=False)

    def member_of(self, drive: Drive) -> Path:
        """The overlay where it is now, as a path on the machine."""
        name = f"{self.name}.{self.suid(drive)}.g{self.generation}.qcow2"
        return self.machine.lab.data / "libvirt-state" / "images" / name


def disk(drive: Drive, bus: str = "") -> str:
    """`bus`: another one than the name tells."""
    return DISK.format(format=drive.format, path=drive.path, id=drive.id, bus=bus or BUSES[drive.id[:2]])


@asynccontextmanager
async def booted(
    hosts: Sequence[LabHost], image: GuestImage, *drives: Drive, **more: Any
) -> AsyncIterator[tuple[Domain, Machine]]:
    """A domain under load on hostA, and hostB."""
    here, there = map(Machine, hosts)
    for machine in (here, there):
        machine.run("truncate", "--size=1M", f"{SRV}/cd.iso")
    domain = Domain(here, drives)
    await domain.define(image, [there], **more)
    try:
        yield domain, there
    finally:
        for machine in (here, there):
            machine.run("virsh", "destroy", domain.name, check=False)
        domain.leave_terminal()
        print(here.logs(), there.logs())
        for machine in (here, there):
            sweep(machine)


def is_libvirts(words: str) -> bool:
    """What a process or a file is called that is none of ours."""
    return "libvirt" in words or "virtqemud" in words


def cut_off(machine: Machine) -> None:
    """What is ours there ends, and is gone from /run, as if by the power switch; domains are left to libvirt."""
    # In rounds, because a supervisor that is killed second starts its process again.
    while left := [process for process in machine.processes() if not is_libvirts(str(process))]:
        for process in left:
            kill(process.pid)
    machine.run("find", RUN, "-mindepth", "1", "-delete", check=False)


def sweep(machine: Machine) -> None:
    """End and remove what is ours there, whatever state it is in; domains and libvirtd are left to libvirt."""
    cut_off(machine)
    machine.run("sed", "-i", "/qemu-esd-migration/d", f"{SSH}/authorized_keys")
    for folder in (STATE, IMAGES):
        machine.run("find", folder, "-mindepth", "1", "-delete", check=False)


def nothing_left(*machines: Machine) -> None:
    """Of ours, but for records of guests and empty rooms."""
    for machine in machines:
        kept = ("/var/lib/qemu-esd/vm/web1", "/var/lib/qemu-esd/vm/web1/guest.json", "/run/qemu-esd/guest")
        assert [path for path in machine.leftovers() if path not in kept and not is_libvirts(path)] == []
