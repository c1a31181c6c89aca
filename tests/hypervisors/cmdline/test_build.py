"""The command line of a bare guest, by its words and by what a real QEMU makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from qemu_esd.hypervisors.cmdline.build import bare_argv, block_device, block_node, derived_mac
from qemu_esd.hypervisors.cmdline.carried import DiskSwap, Target
from qemu_esd.hypervisors.cmdline.carry import carry
from qemu_esd.hypervisors.cmdline.disk_spec import GuestDisk, disks_from
from qemu_esd.hypervisors.cmdline.reader import read
from qemu_esd.hypervisors.cmdline.sockets import Console, QmpSocket
from qemu_esd.hypervisors.cmdline.spec import GuestSpec, Nic
from tests.hypervisors.cmdline.running import BINARY, Qmp, device_tree, make_image, qemu
from tests.hypervisors.cmdline.test_real_qemu import machine_type, migrate

ODD = "a, b'c\"d $(e) ü"


def argv_of(spec: GuestSpec, folder: Path, *extra: str) -> tuple[str, ...]:
    monitors = [QmpSocket(name, str(folder / f"{name}.sock")) for name in ("control", "observe", "user")]
    console = Console("console", str(folder / "console.sock"), str(folder / "console.log"))
    argv = bare_argv(spec, binary=BINARY, machine_type="pc-q35-7.2", accel="tcg", monitors=monitors, console=console)
    return (*argv, *extra)


def test_the_words() -> None:
    spec = GuestSpec(
        "vm1", memory=64 << 20, smp=2, kernel="/k", append="a,b", nics=(Nic("user"),), extra=("-no-reboot",)
    )
    mac = derived_mac("vm1", 0)
    card = {"driver": "virtio-net-pci", "id": "esd-nic0", "netdev": "esd-net0", "mac": mac}
    assert argv_of(spec, Path("/r")) == (
        BINARY,
        *("-name", "guest=vm1", "-machine", "pc-q35-7.2", "-accel", "tcg", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-m", "size=65536k", "-smp", "2", "-kernel", "/k", "-append", "a,b"),
        *("-chardev", "socket,id=control,path=/r/control.sock,server=on,wait=off", "-mon", "control,mode=control"),
        *("-chardev", "socket,id=observe,path=/r/observe.sock,server=on,wait=off", "-mon", "observe,mode=control"),
        *("-chardev", "socket,id=user,path=/r/user.sock,server=on,wait=off", "-mon", "user,mode=control"),
        "-chardev",
        "socket,id=console,path=/r/console.sock,logfile=/r/console.log,logappend=on,server=on,wait=off",
        *("-serial", "chardev:console", "-netdev", "user,id=esd-net0"),
        "-device",
        json.dumps(card),
        "-no-reboot",
    )


def test_nodes_and_devices() -> None:
    disk = GuestDisk("d", "/dev/vg/x", "raw", "scsi", "n", wwn="0x5000", logical_block_size=4096, cache="writethrough")
    cache = {"direct": False, "no-flush": False}
    assert block_node(disk) == {
        "driver": "raw",
        "node-name": "n",
        "read-only": False,
        "discard": "unmap",
        "cache": cache,
        "file": {"driver": "host_device", "filename": "/dev/vg/x", "aio": "threads", "cache": cache},
    }
    assert block_device(disk, 3) == {
        "driver": "scsi-hd",
        "bus": "esd-scsi.0",
        "scsi-id": 3,
        "id": "d",
        "drive": "n",
        "wwn": 0x5000,
        "logical_block_size": 4096,
        "physical_block_size": 4096,
        "write-cache": "off",
    }


def test_mac_addresses_differ_and_are_local() -> None:
    macs = {derived_mac(guest, number) for guest in ("a", "b") for number in (0, 1)}
    assert len(macs) == 4 and all(mac.startswith("52:54:00:") for mac in macs)


@pytest.fixture
def odd_room(tmp_path: Path) -> Path:
    folder = tmp_path / ODD
    folder.mkdir()
    return folder


def disks_in(folder: Path) -> tuple[GuestDisk, ...]:
    """One disk on each bus that can be migrated, every one with an odd path."""
    for name, format in (("v.raw", "raw"), ("s.raw", "raw"), ("i.qcow2", "qcow2"), ("r.raw", "raw")):
        make_image(folder / name, format)
    where = str(folder).replace(",", ",,")
    return disks_from(
        [
            f"{where}/v.raw,serial={ODD.replace(',', ',,').replace('ü', 'u')},block=4096",
            f"{where}/s.raw,bus=scsi,wwn=0x5000c50015ea71ab,cache=writeback",
            f"{where}/i.qcow2,bus=ide,serial=ide1,cache=writethrough",
            f"{where}/r.raw,bus=scsi,readonly",
        ]
    )


def test_a_real_qemu_runs_it_with_every_odd_name(odd_room: Path) -> None:
    spec = GuestSpec(ODD, disks_in(odd_room), memory=64 << 20, smp=2, uuid="6f1b1b8e-62ad-4a50-8a26-3a3ba0b1a5f7")
    with qemu(argv_of(spec, odd_room, "-S"), odd_room / "control.sock", odd_room / "log") as guest:
        assert guest("query-name") == {"name": ODD}
        assert guest("query-uuid") == {"UUID": spec.uuid}
        assert guest("query-memory-size-summary")["base-memory"] == 64 << 20
        assert len(guest("query-cpus-fast")) == 2
        assert shown(guest) == {
            "vda": ("raw", str(odd_room / "v.raw"), False, True, True),
            "sda": ("raw", str(odd_room / "s.raw"), False, False, True),
            "hda": ("qcow2", str(odd_room / "i.qcow2"), False, False, False),
            "sdb": ("raw", str(odd_room / "r.raw"), True, True, True),
        }
        serial = guest("qom-get", path="/machine/peripheral/vda", property="serial")
        assert serial == ODD.replace("ü", "u")
    assert (odd_room / "console.log").exists()


def shown(guest: Qmp) -> dict[str, tuple[Any, ...]]:
    """Of each disk: format, file, read-only, O_DIRECT, write cache."""
    # QEMU gives the path of a virtio disk and the id of the others.
    named = [(block["qdev"].removesuffix("/virtio-backend"), block["inserted"]) for block in guest("query-block")]
    blocks = {path.rpartition("/")[2]: block for path, block in named}
    return {
        id: (b["drv"], b["image"]["filename"], b["ro"], b["cache"]["direct"], b["cache"]["writeback"])
        for id, b in blocks.items()
    }


def test_a_real_qemu_runs_an_nvme_disk(tmp_path: Path) -> None:
    image = make_image(tmp_path / "n.raw")
    spec = GuestSpec("vm1", disks_from([f"{image},bus=nvme,block=4096"]), memory=64 << 20)
    with qemu(argv_of(spec, tmp_path, "-S"), tmp_path / "control.sock", tmp_path / "log") as guest:
        assert guest("qom-get", path="/machine/peripheral/nvme0", property="serial") == "nvme0"
        assert guest("qom-get", path="/machine/peripheral/nvme0", property="logical_block_size") == 4096


def test_a_bare_guest_can_be_carried(odd_room: Path, tmp_path: Path) -> None:
    spec = GuestSpec("vm1", disks_in(odd_room), memory=64 << 20, nics=(Nic("user"),))
    argv = argv_of(spec, odd_room, "-S")
    with qemu(argv, odd_room / "control.sock", odd_room / "log") as source:
        line = read(argv)
        carried = carry(line, swaps_of(spec.disks[:3]), target_in(tmp_path, machine_type(source)))
        assert (line.name, line.memory, carried.problems) == ("vm1", 64 << 20, ())
        assert [monitor.address for monitor in line.monitors] == [
            str(odd_room / f"{name}.sock") for name in ("control", "observe", "user")
        ]
        with qemu(carried.argv, tmp_path / "t.sock", tmp_path / "log") as target:
            assert device_tree(target.devices()) == device_tree(source.devices())
            assert target.media() == source.media()
            assert migrate(source, target, tmp_path / "ram.sock") == ("completed", "completed")


def swaps_of(disks: Sequence[GuestDisk]) -> list[DiskSwap]:
    """The same images under other node names; the source still holds their locks."""
    nodes = [json.loads(json.dumps(block_node(disk))) for disk in disks]
    for node in nodes:
        node["node-name"] = f"new-{node['node-name']}"
        node["file"]["locking"] = "off"
    return [DiskSwap(disk.id, (node,), node["node-name"]) for disk, node in zip(disks, nodes, strict=True)]


def target_in(folder: Path, machine: str) -> Target:
    console = Console("console", str(folder / "console.sock"), str(folder / "console.log"))
    return Target(machine, (QmpSocket("control", str(folder / "t.sock")),), console)
