"""Names and paths with everything in them that a shell, QEMU or a file system would take for something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.errors import EsdError, UsageError
from qemu_esd.model.plan import Transport
from qemu_esd.model.policy import Handler
from qemu_esd.model.request import Request
from tests.integration.support import content
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest

pytestmark = pytest.mark.lab

# Name of the VM, file of its disk below /srv, folder of the overlay, transport.
ODD = {
    "quotes": ("a b'c\"d", 'it\'s a "disk".raw', "/srv/o'v e\"r", Transport.TLS),
    "commas": ("com,ma,,x=y;z&w|v", "a,b,,c=d.qcow2", "/srv/x,y,,file=z", Transport.SSH),
    "commands": ("$(touch pwned)`touch pwned`", "$(touch pwned);touch pwned.raw", "/srv/`touch pwned`", Transport.TLS),
    "signs": ("%s{0}*?[a]~#!\\ü \\n", "-n --help %s\\ü*.qcow2", "/srv/-rf *", Transport.SSH),
}


@pytest.mark.parametrize("case", ODD)
async def test_odd_names_are_names(fleet: Fleet, tmp_path: Path, case: str) -> None:
    name, file, folder, transport = ODD[case]
    drive = Drive("vda", 7, file, size=4 * MIB)
    guest = await fleet.idle(drive, name=name)
    fleet.b.real(folder).mkdir()
    told = await guest.migrate(fleet.b, Handler.BACKGROUND, overlay_folder=folder, transport=transport)
    (found,) = fleet.b.real(folder).iterdir()
    assert (await guest.look()).vm == name
    assert fleet.a.real(f"{drive.path}.moved-{told.id}").exists()
    await fleet.finish(guest)
    content.check_pattern(content.flatten(content.image(found, "qcow2"), tmp_path / "flat"), drive)
    for machine in fleet.machines:
        assert machine.run("find", "/srv", "/tmp", "/run", "/var/lib", "-name", "pwned").stdout == ""


@pytest.mark.parametrize("name", ["", "-lead", ".", "..", "../up", "a/b", "new\nline", "tab\there", "x" * 65, "nul\0"])
async def test_a_vm_is_not_called_so(fleet: Fleet, name: str) -> None:
    guest = Guest(name, fleet.a, [Drive("vda", 7, size=MIB)])
    guest.drives[0].make(fleet.a)
    before = fleet.snapshot()
    with pytest.raises(UsageError, match="cannot be the name of a VM"):
        await guest.start(None, made=True)
    with pytest.raises(EsdError) as refused:
        await api.migrate(Request(name, "hostB", Handler.REDIRECT, source="hostA"), print)
    assert refused.value.exit_status in (2, 3)
    await fleet.unchanged(before)


@pytest.mark.parametrize(
    "words",
    [
        *("id=a b", "id=../x", "id=$(id)", "id=-x", "id=a/b", "id=new\nline", "id=esd-mine"),
        *("serial=new\nline", "serial=ünicode", "format=vmdk", "bus=usb", "wwn=12", "file=/etc/passwd"),
    ],
)
async def test_a_disk_is_not_described_so(fleet: Fleet, words: str) -> None:
    drive = Drive("vda", 7, size=MIB, words=words)
    with pytest.raises(UsageError):
        await Guest("vm1", fleet.a, [drive]).start(None)


@pytest.mark.parametrize("path", ["", "new\nline.raw", "bell\a.raw"])
async def test_an_image_is_not_called_so(fleet: Fleet, path: str) -> None:
    with pytest.raises(UsageError):
        await Guest("vm1", fleet.a, [Drive("vda", 7, path or ".raw\r", size=MIB)]).start(None)


@pytest.mark.parametrize("folder", ["", "relative", "../up", "/srv/../up", "-rf", "/srv/new\nline"])
def test_an_overlay_folder_is_not_called_so(folder: str) -> None:
    with pytest.raises(UsageError, match="not a whole path"):
        Request("vm1", "hostB", Handler.REDIRECT, overlay_folder=folder)
