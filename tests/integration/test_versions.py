"""Hosts with QEMUs of different versions: A has the machine's, B and C a newer one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.errors import RefusedError
from qemu_esd.hosts import lab
from qemu_esd.model.policy import Handler
from tests.integration.support import content
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import tell
from tests.integration.support.machine import Machine, ended, kill
from tests.integration.test_foreign import QMP, by_hand, start_idle
from tests.support import newer

pytestmark = pytest.mark.lab

DRIVES = (Drive("vda", 7, size=16 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, fill="holes", chain=1))


@pytest.fixture(scope="module", autouse=True)
def _versions(request: pytest.FixtureRequest, lab_hosts: tuple[lab.LabHost, ...]) -> Iterator[None]:
    """Unless the whole run is so."""
    match request.config.getoption("qemu"):
        case "across":
            yield
        case "new" | newer.TRIXIE:
            pytest.skip("all hosts have the newer QEMU in this run")
        case _:
            usr = request.getfixturevalue("newer_qemu")
            with newer.on(usr, *map(Machine, lab_hosts[1:])):
                yield


async def version(guest: Guest) -> tuple[int, int]:
    told = (await tell(guest, "query-version"))["qemu"]
    return told["major"], told["minor"]


async def test_to_a_newer_one_and_on(fleet: Fleet, tmp_path: Path) -> None:
    """Before it is settled it goes on, between two of the newer kind, and there it settles."""
    guest = await fleet.boot(*DRIVES)
    was, argv = await version(guest), guest.qemu().argv
    await guest.is_well()

    await guest.migrate(fleet.b, Handler.ON_DEMAND)
    assert await version(guest) > was
    assert machine_type(guest.qemu().argv) == machine_type(argv)
    await guest.is_well()
    told = await guest.migrate(fleet.c, Handler.BACKGROUND)

    assert told.state == "settled"
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    for drive in DRIVES:
        target = content.flatten(content.image(guest.member(drive), "qcow2"), tmp_path / "target")
        content.check_content(target, drive)
        assert content.crc(target) == await guest.crc(drive)
    await fleet.finish(guest)


def machine_type(argv: tuple[str, ...]) -> str:
    return argv[argv.index("-machine") + 1]


async def test_back_to_the_older_one(fleet: Fleet) -> None:
    """With a machine that both know, and another handler in between."""
    guest = await fleet.boot(*DRIVES)
    was = await version(guest)
    await guest.migrate(fleet.b, Handler.REDIRECT)
    await api.change_policy("vm1", None, Handler.ON_DEMAND)
    await guest.is_well()

    told = await guest.migrate(fleet.a, Handler.BACKGROUND)

    assert await version(guest) == was
    assert told.state == "settled"
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    await fleet.finish(guest)


async def test_a_machine_that_the_older_one_does_not_know(fleet: Fleet) -> None:
    """A guest that was started on the newer one: it cannot go to the older one, and can to another like its own."""
    guest = Guest("vm1", fleet.b, DRIVES)
    await guest.start(None)
    before = fleet.snapshot()
    with pytest.raises(RefusedError, match=r"hostA: .*machine type pc-q35-") as error:
        await guest.migrate(fleet.a, Handler.REDIRECT)
    assert error.value.exit_status == 3
    await fleet.unchanged(before)

    told = await guest.migrate(fleet.c, Handler.BACKGROUND)

    assert told.state == "settled"
    await fleet.finish(guest)


async def test_options_that_came_and_went(fleet: Fleet) -> None:
    """What has another word now is said in that one; what has none is named before anything is touched."""
    drive = DRIVES[0]
    drive.make(fleet.a)
    words = (*QMP, "-drive", f"file={drive.path},format=raw,if=virtio", "-no-hpet", "-no-acpi")
    guest = Guest("theirs", fleet.a, (drive,))
    start_idle(fleet.a, *words, "-singlestep")
    with pytest.raises(RefusedError, match=r"hostB: .*option -singlestep"):
        await guest.migrate(fleet.b, Handler.REDIRECT)
    old = guest.qemu()
    kill(old.pid)
    await ended(old.pid)

    fleet.a.remove("/tmp/theirs.*")
    start_idle(fleet.a, *words)
    await guest.migrate(fleet.b, Handler.BACKGROUND)

    assert "-no-hpet" not in guest.qemu().argv
    assert {"acpi": "off", "hpet": False}.items() <= (await machine_properties(guest)).items()
    fleet.a.remove("/tmp/theirs.*")
    await fleet.finish(guest)


async def machine_properties(guest: Guest) -> dict[str, object]:
    return {name: await tell(guest, "qom-get", path="/machine", property=name) for name in ("acpi", "hpet")}


THREADS = (
    *("-machine", "pc-q35-7.2", "-object", "iothread,id=io", "-drive", "id=one,file=/srv/vda.raw,format=raw,if=none"),
    *("-device", "virtio-blk-pci,drive=one,iothread=io,id=first", "-device", "virtio-scsi-pci,id=bus,iothread=io"),
    *("-drive", "id=two,file=/srv/b.qcow2,format=qcow2,if=none", "-device", "scsi-hd,drive=two,bus=bus.0"),
)


async def test_disks_with_threads_of_their_own(fleet: Fleet) -> None:
    """The older one would abort, and so neither comes there nor goes from there; under the newer ones all is well."""
    guest = await by_hand(fleet.b, fleet.image, [DRIVES[0], replace(DRIVES[1], seen="sda")], THREADS)
    guest.foreign_console = ("/tmp/theirs.tty", "/tmp/theirs.log")
    with pytest.raises(RefusedError, match=r"hostA: QEMU .* iothread"):
        await guest.migrate(fleet.a, Handler.ON_DEMAND)

    await guest.migrate(fleet.c, Handler.ON_DEMAND)
    for handler in (Handler.REDIRECT, Handler.ON_DEMAND, Handler.BACKGROUND, Handler.REDIRECT):
        await api.change_policy("theirs", None, handler)
    await api.settle_guest("theirs", "hostC", lambda *_: None)

    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    for machine in fleet.machines:
        machine.remove("/tmp/theirs.*")
    await fleet.finish(guest)


async def test_the_older_one_is_not_led_into_its_fault(fleet: Fleet) -> None:
    for drive in DRIVES:
        drive.make(fleet.a)
    start_idle(fleet.a, *QMP, *THREADS)
    guest = Guest("theirs", fleet.a, DRIVES)
    before = fleet.snapshot()
    with pytest.raises(RefusedError, match=r"hostA: QEMU .* iothread"):
        await guest.migrate(fleet.b, Handler.REDIRECT)
    await fleet.unchanged(before)
