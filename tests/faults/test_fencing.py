"""What somebody else may do on the source behind our back, once the guest has left: there is never a second copy."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from images.pattern import MIB
from qemu_esd.errors import RefusedError, RolledBackError
from qemu_esd.model.host import guest_sockets
from qemu_esd.model.policy import Handler
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Measured, State
from qemu_esd.phases import handover
from qemu_esd.phases.context import Context
from tests.faults import report
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import PATHS
from tests.integration.support.inside import qemu_facts, running_on, tell
from tests.integration.support.machine import Machine
from tests.integration.test_rollback import places

pytestmark = pytest.mark.lab

VDA, VDB = Drive("vda", 7, size=16 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1)
ALL = os.environ.get("ESD_FAULTS") == "all"
What = State | Measured | Progress
# As the packages of libvirtd make them.
LIBVIRT_USER = {
    "/etc/passwd": "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin\n",
    "/etc/group": "libvirt-qemu:x:64055:\n",
}
LIBVIRT_SETTINGS = """user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = []
"""
DOMAIN = """<domain type="qemu">
  <name>old</name> <memory unit="MiB">64</memory>
  <os><type arch="x86_64" machine="pc">hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type="file" device="disk">
      <driver name="qemu" type="{format}"/> <source file="{path}"/> <target dev="vda" bus="virtio"/>
    </disk>
  </devices>
</domain>
"""


def word(machine: Machine, command: str) -> dict[str, Any]:
    """One command to the user's own monitor of the guest, at once: nothing else of ours goes on meanwhile."""
    with socket.socket(socket.AF_UNIX) as qmp, qmp.makefile("rw", encoding="utf-8") as stream:
        qmp.settimeout(20)
        qmp.connect(str(machine.path(guest_sockets(PATHS, "vm1").user)))
        stream.readline()
        for each in ("qmp_capabilities", command):
            stream.write(f'{{"execute": "{each}"}}\n')
            stream.flush()
            answer = _answer(stream)
        return answer


def _answer(stream: Any) -> dict[str, Any]:
    while True:
        answer: dict[str, Any] = json.loads(stream.readline())
        if "event" not in answer:
            return answer


def at(moment: State, act: Callable[[], None]) -> Callable[[What], None]:
    def hear(what: What) -> None:
        if what is moment:
            act()

    return hear


async def test_the_source_is_told_to_run_after_the_commit(fleet: Fleet) -> None:
    """By a third party, before its QEMU has ended: the path handler has its images, and it stays where it is."""
    guest = await (fleet.boot(VDA, VDB) if ALL else fleet.idle(VDA, VDB))
    said: list[Any] = []

    def act() -> None:
        said.append((word(fleet.a, "cont"), word(fleet.a, "query-status")["return"]))

    await guest.migrate(fleet.b, Handler.ON_DEMAND, report=at(State.COMMITTED, act))
    ((answer, status),) = said
    assert "lock" in answer["error"]["desc"], answer
    assert (status["status"], status["running"]) == ("postmigrate", False)
    assert await running_on(fleet.machines, "vm1") == ["hostB"]
    if ALL:
        await guest.is_well()
        await guest.pause()
        await guest.recheck()
    report.note(report.Line("third party: cont on the source", "committed", "0", "nothing", "hostB"))
    await fleet.finish(guest)


async def test_the_source_is_told_to_run_before_the_commit(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `completed`, when nobody has its images yet: it has them again, so the target never runs."""
    guest = await (fleet.boot(VDA, VDB) if ALL else fleet.idle(VDA, VDB))
    before, inside, take = places(fleet), await qemu_facts(guest), handover.take_images

    async def too_late(ctx: Context) -> None:
        # QEMU tells the end of its stream a moment before it can be told to run again.
        async with asyncio.timeout(10):
            while word(fleet.a, "query-status")["return"]["status"] != "postmigrate":
                await asyncio.sleep(0.01)
        assert "error" not in word(fleet.a, "cont")
        await take(ctx)

    monkeypatch.setattr(handover, "take_images", too_late)
    with pytest.raises(RolledBackError, match="is on hostA as before"):
        await guest.migrate(fleet.b, Handler.ON_DEMAND)
    assert await running_on(fleet.machines, "vm1") == ["hostA"]
    if ALL:
        await guest.is_well()
    assert (places(fleet), await qemu_facts(guest)) == (before, inside)
    report.note(report.Line("third party: cont on the source", "between completed and commit", "1", "-", "hostA"))
    await fleet.finish(guest, settle=False)


async def test_another_qemu_on_the_images_of_the_source(fleet: Fleet) -> None:
    """Neither by the old name nor by the one that says that it has moved, as long as anybody reads from there."""
    guest = await fleet.idle(VDA, VDB)
    moved = await guest.migrate(fleet.b, Handler.REDIRECT)
    for drive in guest.drives:
        for path, why in ((drive.path, "No such file"), (f"{drive.path}.moved-{moved.id}", "lock")):
            done = qemu_on(fleet.a, path, drive.format)
            assert (done.returncode, why in done.stderr) == (1, True), done.stderr
        ran = await say("vm", "run", "vm2", "--host", "hostA", "--disk", f"{drive.path},format={drive.format}")
        assert (ran.status, "has moved away" in ran.err) == (3, True), ran
    (handler,) = fleet.a.path_handlers()
    note = json.loads(fleet.a.path(f"{VDA.path}.moved-{moved.id}.json").read_text())
    assert (note["target"], note["generation"], note["suid"]) == ("hostB", 1, guest.suid(VDA))
    assert handler == fleet.a.path_handlers()[0]
    report.note(report.Line("another QEMU on the source's images", "handed over", "1", "nothing", "hostB"))
    await fleet.finish(guest)


async def test_libvirt_on_the_images_of_the_source(fleet: Fleet) -> None:
    """As another QEMU: a domain of libvirt, defined by the old path or by the new one, is not started."""
    guest = await fleet.idle(VDA, VDB)
    moved = await guest.migrate(fleet.b, Handler.REDIRECT)
    with libvirt_on(fleet.a) as start:
        for drive in guest.drives:
            for path, why in ((drive.path, "No such file"), (f"{drive.path}.moved-{moved.id}", "lock")):
                done = start(path, drive.format)
                assert (done.returncode, why in done.stderr) == (1, True), done.stderr
    report.note(report.Line("libvirt on the source's images", "handed over", "1", "nothing", "hostB"))
    await fleet.finish(guest)


@contextmanager
def libvirt_on(machine: Machine) -> Iterator[Callable[[str, str], CompletedProcess[str]]]:
    """Starts a domain with one disk by libvirt's driver for QEMU, which is given a place and a user of its own."""
    place = Path("/srv/libvirt")
    machine.run("mkdir", "--parents", f"{place}/etc")
    machine.run("tee", f"{place}/etc/qemu.conf", stdin=LIBVIRT_SETTINGS)
    with ExitStack() as stack:
        for file, line in LIBVIRT_USER.items():
            machine.run("tee", f"{place}/{Path(file).name}", stdin=Path(file).read_text() + line)
            machine.run("mount", "--bind", f"{place}/{Path(file).name}", file)
            stack.callback(machine.run, "umount", "--lazy", file)
        stack.callback(machine.run, "rm", "--recursive", str(place))

        def start(path: str, format: str) -> CompletedProcess[str]:
            machine.run("tee", f"{place}/domain.xml", stdin=DOMAIN.format(path=path, format=format))
            words = ("timeout", "100", "virt-qemu-run", f"--root={place}", f"{place}/domain.xml")
            return machine.run(*words, check=False, seconds=120)

        yield start


def qemu_on(machine: Machine, path: str, format: str) -> Any:
    """A plain one, that would run at once."""
    drive = f"file={path},format={format},if=virtio"
    words = ("-nodefaults", "-display", "none", "-accel", "tcg", "-drive", drive)
    return machine.run("timeout", "10", "qemu-system-x86_64", *words, check=False)


async def test_names_that_are_taken_in_the_source_s_qemu(fleet: Fleet) -> None:
    """A server without exports, a node, an object: the guest stays, and what is somebody else's is left as it is."""
    guest = await fleet.idle(VDA)
    await tell(guest, "nbd-server-start", addr={"type": "unix", "data": {"path": "/run/mine.sock"}})
    before, inside = places(fleet), await qemu_facts(guest)
    with pytest.raises(RefusedError, match="NBD server of vm1 is in use"):
        await guest.migrate(fleet.b, Handler.REDIRECT)
    assert (places(fleet), await qemu_facts(guest)) == (before, inside)
    assert fleet.a.path("/run/mine.sock").is_socket()

    export = f"esd-{guest.suid(VDA)}-src"
    await tell(guest, "block-export-add", type="nbd", id=export, node_name="vda", name="mine")
    inside = await qemu_facts(guest)
    with pytest.raises(RefusedError):
        await guest.migrate(fleet.b, Handler.REDIRECT)
    assert (places(fleet), await qemu_facts(guest)) == (before, inside)
    report.note(report.Line("NBD server or export of that name is there", "preparing", "3", "-", "hostA"))
    await tell(guest, "nbd-server-stop")
    await guest.migrate(fleet.b, Handler.REDIRECT)
    await fleet.finish(guest)
