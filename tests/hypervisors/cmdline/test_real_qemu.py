"""Carried command lines against a real QEMU: the same devices, and a memory stream that fits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qemu_esd.hypervisors.cmdline.carried import DiskSwap, Target
from qemu_esd.hypervisors.cmdline.carry import carry
from qemu_esd.hypervisors.cmdline.facts import BlockUse, CommandLine
from qemu_esd.hypervisors.cmdline.reader import read
from qemu_esd.hypervisors.cmdline.sockets import Console, QmpSocket
from tests.hypervisors.cmdline.running import BINARY, Qmp, device_tree, make_image, qemu

# What somebody might start; {a} and {b} are images of 16 MiB. Nearly all of it relies on what QEMU adds by itself.
LINES = {
    "hda": ["-hda", "{a}"],
    "positional": ["{a}", "-hdb", "{b}", "-cdrom", "{ro}"],
    "hdc": ["-hdc", "{a}"],
    "q35": ["-machine", "q35", "-drive", "file={a},format=raw", "-drive", "file={b},format=raw,index=4"],
    "ide order": [
        *("-drive", "file={a},format=raw", "-drive", "file={ro},media=cdrom"),
        *("-drive", "file={b},format=raw"),
    ],
    "virtio": [
        *("-drive", "if=virtio,file={ro},format=raw,readonly=on", "-drive", "if=virtio,file={a},format=raw"),
        *("-device", "virtio-rng-pci", "-device", '{{"driver":"virtio-balloon-pci"}}'),
        *("-drive", "if=virtio,file={b},format=raw,cache=writethrough,werror=stop"),
    ],
    "nographic": ["-nographic", "-drive", "if=virtio,file={a},format=raw"],
    "nographic q35": ["-M", "q35", "-nographic", "-serial", "null", "-drive", "if=virtio,file={a},format=raw"],
    "isa serial": ["-nographic", "-chardev", "pty,id=c", "-device", "isa-serial,chardev=c", "-hda", "{a}"],
    "scsi": [
        *("-drive", "if=none,id=drive-scsi0,file={a},format=raw,cache=directsync"),
        *("-drive", "if=none,id=two,file={b},format=raw", "-device", "virtio-scsi-pci,id=scsi0"),
        *("-device", "scsi-hd,bus=scsi0.0,drive=drive-scsi0,bootindex=1"),
        "-device",
        '{{"driver":"scsi-hd","bus":"scsi0.0","drive":"two","serial":"a,b","wwn":4660,"lun":3}}',
    ],
    "blockdev": [
        *("-machine", "pc-q35-7.2", "-nodefaults", "-blockdev", "driver=file,node-name=f0,filename={a}"),
        *("-blockdev", '{{"driver":"raw","node-name":"n0","file":"f0"}}', "-object", "iothread,id=io"),
        "-device",
        '{{"driver":"virtio-blk-pci","drive":"n0","id":"d0","iothread":"io","serial":"x","num-queues":2,'
        '"logical_block_size":4096,"physical_block_size":4096}}',
        *("-device", "virtio-blk-pci,drive=n1"),
        *("-blockdev", "raw,node-name=n1,file.driver=file,file.filename={b}"),
    ],
    "usb": [
        "-usb",
        "-drive",
        "if=none,id=stick,file={a},format=raw",
        "-device",
        "usb-storage,drive=stick,serial=u",
    ],
}


class Room:
    """Where one test keeps its images, sockets and logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = {name: str(make_image(folder / f"{name}.raw")) for name in ("a", "b", "ro")}
        self.console = Console("esd-console", str(folder / "console.sock"), str(folder / "console.log"))

    def source(self, words: list[str]) -> list[str]:
        monitor = ["-qmp", f"unix:{self.folder}/source.sock,server,nowait"]
        machine = ["-accel", "tcg", "-m", "64", "-S", "-display", "none"]
        return [BINARY, *machine, *monitor, *(word.format(**self.images) for word in words)]

    def target(self, machine_type: str) -> Target:
        return Target(machine_type, (QmpSocket("esd-control", f"{self.folder}/target.sock"),), self.console)

    def swaps(self, line: CommandLine, source: Qmp) -> list[DiskSwap]:
        writable = [use for use in line.blocks if use.path and not use.read_only]
        return [self.swap(number, use, source) for number, use in enumerate(writable)]

    def swap(self, number: int, use: BlockUse, source: Qmp) -> DiskSwap:
        node = f"new{number}"
        file = {"driver": "file", "filename": use.path, "locking": "off"}
        place = source.place(use.drive.id) if use.drive and not use.device else None
        return DiskSwap(
            use.name, ({"driver": "raw", "node-name": node, "file": file},), node, f"disk{number}", place=place
        )


def machine_type(source: Qmp) -> str:
    return str(source("qom-get", path="/machine", property="type")).removesuffix("-machine")


@pytest.mark.parametrize("words", LINES.values(), ids=LINES.keys())
def test_the_target_has_the_same_devices_and_takes_the_memory(words: list[str], tmp_path: Path) -> None:
    room = Room(tmp_path)
    argv = room.source(words)
    with qemu(argv, tmp_path / "source.sock", tmp_path / "source.log") as source:
        line = read(argv, "/")
        carried = carry(line, room.swaps(line, source), room.target(machine_type(source)))
        assert carried.problems == ()
        with qemu(carried.argv, tmp_path / "target.sock", tmp_path / "target.log") as target:
            assert device_tree(target.devices()) == device_tree(source.devices())
            assert target.media() == source.media() != {}
            assert migrate(source, target, tmp_path / "ram.sock") == ("completed", "completed")


def migrate(source: Qmp, target: Qmp, stream: Path) -> tuple[str, str]:
    for one in (source, target):
        one("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
    target("migrate-incoming", uri=f"unix:{stream}")
    source("migrate", uri=f"unix:{stream}")
    return source.migrated(), target.migrated()


# Devices whose memory stream QEMU refuses to write. If one of these fails, a newer QEMU may have learnt it.
UNMIGRATABLE = {
    "nvme": ["-drive", "if=none,id=d,file={a},format=raw", "-device", "nvme,drive=d,serial=s1"],
    "usb-uas": ["-device", "qemu-xhci", "-device", "usb-uas"],
    "usb-net": ["-device", "qemu-xhci", "-device", "usb-net"],
    "virtio-crypto-pci": ["-object", "cryptodev-backend-builtin,id=c", "-device", "virtio-crypto-pci,cryptodev=c"],
}


@pytest.mark.parametrize(("driver", "words"), UNMIGRATABLE.items(), ids=UNMIGRATABLE.keys())
def test_what_qemu_cannot_migrate_is_refused_beforehand(driver: str, words: list[str], tmp_path: Path) -> None:
    room = Room(tmp_path)
    argv = room.source(words)
    with qemu(argv, tmp_path / "source.sock", tmp_path / "source.log") as source:
        line = read(argv, "/")
        carried = carry(line, room.swaps(line, source), room.target(machine_type(source)))
        assert any(text.startswith(f"-device {driver}") and "cannot migrate" in text for text in carried.problems)
        with pytest.raises(AssertionError, match="non-migratable device"):
            source("migrate", uri=f"unix:{tmp_path}/ram.sock")


def test_a_disk_without_serial_number_keeps_its_name_in_scsi(tmp_path: Path) -> None:
    room = Room(tmp_path)
    argv = room.source(LINES["scsi"])
    with qemu(argv, tmp_path / "source.sock", tmp_path / "source.log") as source:
        line = read(argv, "/")
        carried = carry(line, room.swaps(line, source), room.target(machine_type(source)))
        with qemu(carried.argv, tmp_path / "target.sock", tmp_path / "target.log") as target:
            names = [set(re.findall(r'device_id = "(.*)"', one.devices())) for one in (source, target)]
    assert names == [{"drive-scsi0", "a,b"}, {"drive-scsi0", "a,b"}]


def test_the_guest_sees_the_same_write_cache(tmp_path: Path) -> None:
    room = Room(tmp_path)
    argv = room.source(LINES["virtio"])
    with qemu(argv, tmp_path / "source.sock", tmp_path / "source.log") as source:
        line = read(argv, "/")
        carried = carry(line, room.swaps(line, source), room.target(machine_type(source)))
        with qemu(carried.argv, tmp_path / "target.sock", tmp_path / "target.log") as target:
            assert write_caches(source) == write_caches(target) == [False, True, True]


def write_caches(guest: Qmp) -> list[bool]:
    """Of all virtio disks: the drive's own setting, which is what the device offers the guest."""
    return sorted(
        block["inserted"]["cache"]["writeback"] for block in guest("query-block") if "virtio" in block.get("qdev", "")
    )
