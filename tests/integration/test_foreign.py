"""Guests that somebody else has started: a command line of their own, and a QMP socket."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from images.build import KERNEL_WORDS, GuestImage
from images.pattern import MIB
from qemu_esd.errors import RefusedError
from qemu_esd.model.policy import Handler
from tests.integration.support import content
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import MEMORY, OFTEN, Guest
from tests.integration.support.machine import Machine

pytestmark = pytest.mark.lab

RAW, QCOW2 = Drive("a", 7, "a.img", size=16 * MIB), Drive("b", 9, "b.qcow2", size=16 * MIB, fill="holes", chain=1)


def named(drive: Drive, seen: str) -> Drive:
    """The drive under the name that this guest gives it."""
    return Drive(drive.id, drive.seed, drive.file, drive.size, drive.fill, drive.chain, seen=seen)


# The words of the command line, and the names that the guest has for the disks.
STYLES = {
    "drive-if-virtio": (
        ("-drive", "file=/srv/a.img,format=raw,if=virtio", "-drive", "file=b.qcow2,format=qcow2,if=virtio,cache=none"),
        ("vda", "vdb"),
    ),
    "drive-and-device": (
        (
            *("-drive", "id=one,file=/srv/a.img,format=raw,if=none"),
            *("-device", "virtio-blk-pci,drive=one,logical_block_size=4096,physical_block_size=4096,serial=mine"),
            *("-drive", "id=two,file=/srv/b.qcow2,format=qcow2,if=none", "-device", "virtio-scsi-pci,id=bus"),
            *("-device", "scsi-hd,drive=two,bus=bus.0,lun=3,wwn=0x5000c500000000aa"),
        ),
        ("vda", "sda"),
    ),
    "hda": (("-machine", "pc", "-hda", "/srv/a.img"), ("sda",)),
    "blockdev": (
        (
            *("-blockdev", "driver=file,node-name=f,filename=/srv/a.img", "-blockdev", "driver=raw,node-name=r,file=f"),
            *("-device", '{"driver":"virtio-blk-pci","drive":"r","addr":"7"}'),
            *("-blockdev", '{"driver":"qcow2","node-name":"q","file":{"driver":"file","filename":"/srv/b.qcow2"}}'),
            *("-device", "virtio-blk-pci,drive=q,addr=5"),
        ),
        ("vdb", "vda"),
    ),
}
QMP = ("-qmp", "unix:/tmp/theirs.qmp,server=on,wait=off")
# A console of theirs goes along as it is; for a terminal there is one of ours on the target.
SOCKET = ("-chardev", "socket,id=tty,path=/tmp/theirs.tty,server=on,wait=off,logfile=/tmp/theirs.log,logappend=on")
CONSOLES = {"hda": ("-serial", "stdio")}


@pytest.mark.parametrize("style", STYLES)
async def test_it_is_moved_with_what_it_has(fleet: Fleet, tmp_path: Path, style: str) -> None:
    words, names = STYLES[style]
    drives = [named(drive, name) for drive, name in zip((RAW, QCOW2), names, strict=False)]
    guest = await by_hand(fleet.a, fleet.image, drives, words, CONSOLES.get(style, ()))
    seen = guest.described()
    await guest.is_well()

    guest.foreign_console = None if style in CONSOLES else ("/tmp/theirs.tty", "/tmp/theirs.log")
    told = await guest.migrate(fleet.b, Handler.BACKGROUND)

    assert fleet.a.qemus("theirs") == ()
    await guest.sees(seen)
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    for drive, disk in zip(drives, told.disks, strict=True):
        member = fleet.b.real(f"/var/lib/qemu-esd/disks/theirs.{disk.suid}.g1.qcow2")
        target = content.flatten(content.image(member, "qcow2"), tmp_path / "target")
        source = content.flatten(drive.source(fleet.a, told.id), tmp_path / "source")
        assert len(content.later_writes(source, target)) > 0
        assert content.crc(target) == await guest.crc(drive)
    for machine in fleet.machines:
        machine.remove("/tmp/theirs.*")
    await fleet.finish(guest)


LAYERS = {
    "data file": ("file=/srv/q.qcow2,format=qcow2", "has its data in another file than /srv/q.qcow2"),
    "filter": ("driver=throttle,file.driver=raw,file.file.driver=file,file.file.filename=/srv/d.raw", "throttle"),
}


@pytest.mark.parametrize("layer", LAYERS)
async def test_layers_that_cannot_be_moved(fleet: Fleet, layer: str) -> None:
    words, named = LAYERS[layer]
    made = (
        "qemu-img",
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "data_file=/srv/d.raw,data_file_raw=on",
        "/srv/q.qcow2",
        "8M",
    )
    fleet.a.run(*made)
    group = ("-object", "throttle-group,id=g") if layer == "filter" else ()
    more = ",throttle-group=g" if layer == "filter" else ""
    start_idle(fleet.a, *QMP, *group, "-drive", f"{words}{more},if=virtio")
    before = fleet.snapshot()
    with pytest.raises(RefusedError, match=named) as error:
        await Guest("theirs", fleet.a, ()).migrate(fleet.b, Handler.REDIRECT)
    assert (error.value.host, error.value.exit_status) == ("hostA", 3)
    await fleet.unchanged(before)


async def by_hand(
    machine: Machine, image: GuestImage, drives: Sequence[Drive], words: Sequence[str], console: Sequence[str] = ()
) -> Guest:
    """A guest that somebody has started there, under load."""
    guest = Guest("theirs", machine, drives)
    for drive in drives:
        drive.make(machine)
    patterns = " ".join(drive.option for drive in drives)
    options = f"{KERNEL_WORDS} esd.mode=verify esd.rate=200 esd.area=1M {OFTEN} {patterns}"
    start(
        machine,
        *("qemu-system-x86_64", "-name", "theirs", "-display", "none", "-accel", "tcg", "-m", f"{MEMORY >> 10}k"),
        *(*QMP, "-monitor", "none", "-net", "none", "-vga", "none"),
        *(*(console or (*SOCKET, "-serial", "chardev:tty")), *words),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", options),
    )
    guest.foreign_console = ("/tmp/theirs.tty", "/tmp/theirs.out" if console else "/tmp/theirs.log")
    guest.listen()
    await guest.console.wait("ready")
    return guest


def start_idle(machine: Machine, *words: str) -> None:
    """One that stays in its firmware. With -daemonize its start ends when everything is made, monitors included."""
    machine.run("qemu-system-x86_64", "-daemonize", "-display", "none", "-m", "64", "-name", "theirs", *words)


def start(machine: Machine, *argv: str) -> None:
    """As an administrator does it: in the background, from a folder of his."""
    script = 'cd /srv && exec "$@" </dev/null >/tmp/theirs.out 2>&1'
    machine.run("setsid", "--fork", "sh", "-c", script, "sh", *argv)


# What cannot be carried over, and the word for it in the refusal.
SHARE = ("-fsdev", "local,id=f,path=/tmp,security_model=none", "-device", "virtio-9p-pci,fsdev=f,mount_tag=t")


@pytest.mark.parametrize(("words", "what"), [((*QMP, *SHARE), "9p|fsdev"), ((), "no QMP socket")])
async def test_what_cannot_go_is_named(fleet: Fleet, words: Sequence[str], what: str) -> None:
    RAW.make(fleet.a)
    disk = ("-drive", "file=/srv/a.img,format=raw,if=virtio")
    start_idle(fleet.a, *disk, *words)
    before = fleet.snapshot()
    with pytest.raises(RefusedError, match=what) as error:
        await Guest("theirs", fleet.a, ()).migrate(fleet.b, Handler.REDIRECT)
    assert (error.value.host, error.value.exit_status) == ("hostA", 3)
    await fleet.unchanged(before)
