"""Guests on devices that look shared, moved as on storage that is shared: by plain QEMU, by plain libvirt."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from xml.etree.ElementTree import fromstring

from images.build import KERNEL_WORDS, GuestImage
from qemu_esd import devices, guests
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.hypervisors.cmdline.spec import GuestSpec
from qemu_esd.model.host import guest_sockets
from qemu_esd.qmp import machine, migrate
from qemu_esd.qmp.session import open_session
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive, tool
from tests.integration.support.guest import MEMORY, OFTEN, PATHS, Guest
from tests.integration.support.machine import RUN, SRV, Machine, Process, kill

PORT = 49700
LOAD = f"esd.mode=verify esd.rate=200 {OFTEN}"
CONSOLE, LOG = f"{SRV}/shared.sock", f"{SRV}/shared.log"
XML = """<domain type="qemu">
  <name>{name}</name> <memory unit="KiB">131080</memory>
  <os><type arch="x86_64" machine="q35">hvm</type>
    <kernel>{srv}/kernel</kernel> <initrd>{srv}/initrd</initrd>
    <cmdline>{kernel} {load} {options}</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    {disks}
    <serial type="unix"><source mode="bind" path="{console}"/><log file="{log}" append="on"/></serial>
  </devices>
</domain>
"""
DISK = """<disk type="file" device="disk"><driver name="qemu" type="{format}" cache="{cache}"/>
  <source file="{path}"/><target dev="{id}" bus="virtio"/></disk>"""


class Bare(Guest):
    """A bare guest whose only disk is the device `suid`."""

    def __init__(self, machine: Machine, suid: str, drive: Drive, name: str = "vm1") -> None:
        super().__init__(name, machine, [drive])
        self.device = suid

    async def boot(self, image: GuestImage, load: str = LOAD) -> None:
        options = " ".join([KERNEL_WORDS, load, self.drives[0].option])
        words = {"kernel": str(image.kernel), "initrd": str(image.initrd), "append": options, "memory": MEMORY}
        self.spec = GuestSpec(self.name, uuid="6ba7b810-9dad-11d1-80b4-00c04fd430c8", **words)  # type: ignore[arg-type]
        await self._run(self.machine)
        await self.settle_in(booted=True)

    async def _run(self, machine: Machine, *more: str) -> None:
        async with devices.opened() as crew:
            words = await devices.guest_words(crew, self.device, machine.name)
            spec = GuestSpec(**{**self.spec.__dict__, "extra": (*words, *more)})
            await guests.run(crew.hosts, spec, machine.name)

    async def move_plainly(self, target: Machine) -> None:
        """As on shared storage: memory only, and nobody tells QEMU anything of disks."""
        await self._run(target, "-incoming", "defer")
        control = guest_sockets(PATHS, self.name).control
        async with open_hosts() as hosts:
            here, there = await hosts.get(self.machine.name), await hosts.get(target.name)
            async with open_session(here, control, "source") as source, open_session(there, control, "target") as other:
                await migrate.listen(other, f"tcp:{target.address}:{PORT}")
                await migrate.set_capabilities(source, {"events": True})
                with source.listening("MIGRATION") as events:
                    await migrate.start(source, f"tcp:{target.address}:{PORT}")
                    ended = await migrate.wait_status(events, frozenset({"completed", "failed"}), 60)
                assert ended == "completed"
                assert await machine.run_state_at_rest(source) == "postmigrate"
            await guests.kill(hosts, self.name, self.machine.name)
            self.leave_terminal()
        self.machine = target
        self.listen()


class Domain(Guest):
    """A domain of libvirt, made and moved by virsh."""

    def __init__(self, machine: Machine, drives: Sequence[Drive], name: str = "web1") -> None:
        super().__init__(name, machine, drives)
        self.foreign_console = (CONSOLE, LOG)

    async def define(self, image: GuestImage, others: Sequence[Machine], load: str = LOAD, cache: str = "none") -> None:
        for each in (self.machine, *others):
            for path, file in ((image.kernel, "kernel"), (image.initrd, "initrd")):
                shutil.copy(path, each.real(f"{SRV}/{file}"))
        for drive in self.drives:
            drive.make(self.machine)
        disks = "".join(
            DISK.format(format=drive.format, path=drive.path, id=drive.id, cache=cache) for drive in self.drives
        )
        options = " ".join(drive.option for drive in self.drives)
        words: dict[str, Any] = {
            "srv": SRV,
            "kernel": KERNEL_WORDS,
            "load": load,
            "options": options,
            "console": CONSOLE,
            "log": LOG,
        }
        self.machine.run("tee", f"{SRV}/web1.xml", stdin=XML.format(name=self.name, disks=disks, **words))
        self.virsh("define", f"{SRV}/web1.xml")
        self.virsh("start", self.name)
        await self.settle_in(booted=True)

    def virsh(self, *words: str, check: bool = True) -> str:
        done = self.machine.run("virsh", "--quiet", *words, check=check, seconds=120)
        return (done.stdout + done.stderr).strip()

    def move_plainly(self, target: Machine) -> str:
        """`virsh migrate --live`, with no flag about storage; what it said. Where it said nothing, the guest moved."""
        said = self.virsh("migrate", "--live", self.name, f"qemu+ssh://{target.name}/system", check=False)
        if not said:
            self.arrived(target)
        return said

    def disk(self, *flags: str) -> dict[str, str]:
        """What libvirt says of the first disk: its type and where it is."""
        disk = fromstring(self.virsh("dumpxml", *flags, self.name)).find("devices/disk")
        assert disk is not None
        source = disk.find("source")
        assert source is not None
        return {"type": disk.get("type", ""), **source.attrib}


async def made(suid: str, drive: Drive, machine: Machine, *others: Machine) -> None:
    """The device on these hosts, with the drive's pattern written through its socket on the first."""
    hosts = ",".join(each.name for each in (machine, *others))
    said = await say("device", "create", suid, "--size", str(drive.size), "--host", hosts, "--policy", "on-demand")
    assert said.status == 0, said.err
    drive.make(machine)
    tool("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(machine.real(drive.path)), uri(suid, machine))
    machine.path(drive.path).unlink()


def uri(suid: str, machine: Machine) -> str:
    """A device as the machine finds it on that host."""
    return f"nbd+unix:///{suid}?socket={machine.path(f'{RUN}/device/{suid}.sock')}"


def daemon(machine: Machine, suid: str, part: str) -> Process:
    """The storage daemon that is the "face" or the "gate" of a device there."""
    (found,) = [one for one in machine.path_handlers() if f"/{suid}/{part}.sock" in " ".join(one.argv)]
    return found


def strike(machine: Machine, suid: str, part: str) -> None:
    """Kill that daemon. Its supervisor starts it again."""
    with suppress(ValueError):
        kill(daemon(machine, suid, part).pid)
