"""Devices that look shared: a domain moves by plain libvirt, and the policy follows it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from images.build import GuestImage
from images.pattern import MIB
from qemu_esd import devices, sharing
from qemu_esd.errors import RefusedError
from qemu_esd.hosts import lab
from qemu_esd.model.policy import Handler
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.guest import OFTEN
from tests.integration.support.machine import SRV, STATE, Machine
from tests.integration.support.shared import Domain, strike
from tests.support.domains import keeps_reconnect, pauses, remove_all
from tests.support.small_disk import small_disk

pytestmark = pytest.mark.lab

Hosts = tuple[lab.LabHost, ...]
VDA = Drive("vda", 7, "a.qcow2", size=32 * MIB, chain=1, serial="esdshared")
# Only the first MiBs are worked on, so that the test knows of the others that nobody has read them.
FRESH = (20 * MIB, MIB // 2)
# For so many seconds a path handler that has come back looks for guests to be told to go on.
FACE_LOOKS = "12"
LOAD = f"esd.mode=verify esd.rate=200 esd.mix=60/40/0 esd.area=4M esd.spread=0 {OFTEN}"


@pytest.fixture
def hosts(libvirt_hosts: Hosts) -> Iterator[Hosts]:
    """Two hosts with libvirt, without devices afterwards, whatever became of the test."""
    yield libvirt_hosts
    asyncio.run(swept(libvirt_hosts))


async def swept(hosts: Hosts) -> None:
    for host in hosts:
        await remove_all(host)
    for one in (await say("device", "list", "--host", "hostA", "--host", "hostB", "--json")).json["devices"]:
        await say("device", "delete", one["suid"], "--yes", "--host", one["hosts"][0])


async def shows(suid: str) -> tuple[str, list[str], int]:
    """Who has the authority, on which hosts it is used, and how many bytes are elsewhere."""
    told = (await say("device", "show", suid, "--json")).json
    return told["authority"], [place["host"] for place in told["places"] if place["clients"]], told["remote_bytes"]


async def test_refused_before_and_accepted_after(hosts: Hosts, lab_image: GuestImage) -> None:
    here, there = map(Machine, hosts)
    guest = Domain(here, [VDA])
    await guest.define(lab_image, [there], LOAD)
    await guest.is_well()
    seen = await guest.disks()
    assert "Unsafe migration: Migration without shared storage is unsafe" in guest.move_plainly(there)

    words = ("share", "web1", "--host", "hostA", "--with", "hostB", "--policy", "on-demand", "--json")
    assert (await say(*words)).status == 2
    told = await say(*words, "--yes")
    assert told.status == 0, told.err
    guest.leave_terminal()
    suid = told.json["device"]
    socket = f"/run/qemu-esd/device/{suid}.sock"
    for flags in ((), ("--inactive",)):
        assert guest.disk(*flags)["type"] == "network"
    await guest.is_well()
    await guest.sees(seen)
    assert here.path(socket).stat().st_mode & 0o777 == 0o600

    # Before anything else of ours is done: what it reads and writes there goes to hostA.
    assert guest.move_plainly(there) == ""
    await guest.is_well()
    assert await shows(suid) == ("hostA", ["hostB"], 0)
    # libvirt 9.0's client does not wait: the domain stands still until the next path handler tells it to go on.
    strike(there, suid, "face")
    assert not (await pauses(guest) and keeps_reconnect(guest))

    assert (await say("device", "move", suid, "hostB")).status == 0
    authority, used, remote = await shows(suid)
    assert (authority, used) == ("hostB", ["hostB"])
    assert remote > VDA.size // 2
    await guest.is_well()

    # Back, while half of the data is still there: now hostA forwards.
    assert guest.move_plainly(here) == ""
    await guest.is_well()
    assert (await shows(suid))[:2] == ("hostB", ["hostA"])
    said = await say("device", "move", suid, "hostA")
    assert said.status == 3
    assert "still reads from hostA" in said.err

    assert guest.move_plainly(there) == ""
    assert (await say("device", "settle", suid)).status == 0
    assert await shows(suid) == ("hostB", ["hostB"], 0)
    assert not here.path(VDA.path).exists()
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    crc = await guest.crc(VDA)

    undo = ("share", "web1", "--host", "hostB", "--undo", "--yes", "--json")
    assert "is not persistent, as libvirt leaves it behind a plain move" in " ".join((await say(*undo)).err.split())
    there.run("sh", "-c", "virsh dumpxml web1 >/srv/web1.xml && virsh define /srv/web1.xml")
    assert "has images put aside on hostA" in " ".join((await say(*undo)).err.split())
    assert (await say("device", "release", suid)).status == 0
    told = await say(*undo)
    assert told.status == 0, told.err
    guest.leave_terminal()
    assert guest.disk()["type"] == "file"
    assert guest.disk()["file"] == told.json["image"]
    assert await guest.crc(VDA) == crc
    guest.virsh("destroy", "web1")
    guest.leave_terminal()
    for machine in (here, there):
        left = [path for path in machine.leftovers() if suid in path and path != told.json["image"]]
        assert left == []
    here.remove(f"{SRV}/*.moved-*")


async def test_a_domain_waits_for_room(hosts: Hosts, lab_image: GuestImage) -> None:
    """As a bare guest does (tests/faults/test_devices.py). It reads of a file system in memory, hence its cache."""
    here, there = map(Machine, hosts)
    guest = Domain(here, [VDA])
    await guest.define(lab_image, [there], LOAD, cache="writeback")
    share = ("share", "web1", "--host", "hostA", "--with", "hostB", "--policy", "on-demand", "--yes", "--json")
    suid = (await say(*share)).json["device"]
    guest.leave_terminal()
    assert guest.move_plainly(there) == ""
    with small_disk(there, f"{STATE}/disks", "64M") as room:
        assert (await say("device", "move", suid, "hostB")).status == 0
        await guest.is_well()
        room.fill()
        waiting = asyncio.ensure_future(guest.write(VDA, *FRESH))
        await paused(guest)
        assert guest.virsh("domblkerror", "web1") == "vda: no space"
        said = f"web1 stands still on hostB: no space is left for {suid} on hostB"
        for words in (("status",), ("device", "show", suid)):
            told = await say(*words)
            assert said in " ".join((told.out + told.err).split()), told
        strike(there, suid, "face")
        events = ("qemu-monitor-event", "--domain", "web1", "--event", "RESUME", "--timeout", FACE_LOOKS)
        assert "event loop timed out" in guest.virsh(*events, check=False)
        room.make_room()
        # By the first request after a path handler was killed libvirt's QEMU only connects.
        while not waiting.done():
            if "paused" in guest.virsh("domstate", "web1"):
                guest.virsh("resume", "web1")
            await asyncio.wait([waiting], timeout=1)
        assert await waiting == 0
        await guest.is_well()
        assert (await say("device", "settle", suid)).status == 0
        await guest.pause()
        await guest.recheck()
        guest.virsh("destroy", "web1")
        guest.leave_terminal()
        assert (await say("device", "delete", suid, "--yes")).status == 0


async def paused(guest: Domain) -> None:
    async with asyncio.timeout(60):
        while guest.virsh("domstate", "--reason", "web1") != "paused (I/O error)":
            await asyncio.sleep(0.2)


async def test_what_cannot_be_shared_is_named(hosts: Hosts, lab_image: GuestImage) -> None:
    here, there = map(Machine, hosts)
    guest = Domain(here, [Drive("vda", 7, size=8 * MIB)])
    # It is started twice, and reads the same each time.
    await guest.define(lab_image, [there], f"esd.mode=verify esd.rate=200 esd.mix=0/0/100 {OFTEN}")
    share = ("share", "web1", "--host", "hostA", "--with", "hostB", "--yes")
    for words, status, why in (
        (("share", "nobody", *share[2:]), 3, "its libvirt has no domain nobody"),
        ((*share[:2], "vdx", *share[2:]), 2, "web1 has no disk vdx"),
        ((*share, "--policy", "miss"), 2, "a device has no policy miss"),
        ((*share[:4], "--undo", "--yes"), 3, "vda of web1 is not shared"),
        (share[:4], 2, "to which hosts may it move?"),
    ):
        said = await say(*words)
        assert (said.status, why in " ".join(said.err.split())) == (status, True), said.err
    guest.virsh("snapshot-create-as", "web1", "s1", "--disk-only")
    said = await say(*share)
    assert (said.status, "its snapshots name the image" in said.err) == (3, True), said.err
    assert guest.virsh("domstate", "web1") == "running"
    for machine in (here, there):
        assert not list(machine.path("/var/lib/qemu-esd").glob("device/*"))
    guest.virsh("snapshot-delete", "web1", "s1", "--metadata")
    await somebody_is_quicker(guest)
    await while_it_is_shut_off(guest, there)


async def somebody_is_quicker(guest: Domain) -> None:
    """The name of the device is taken while the domain is being saved: it comes back as it was; that device stays."""
    async with AsyncExitStack() as stack, devices.opened() as crew:
        target = await sharing.find(crew, stack, "hostA", "web1", None)
        words = ("device", "create", target.device, "--size", "1M", "--host", "hostA,hostB")

        def be_quicker(_: str) -> None:
            subprocess.run([sys.executable, "-m", "qemu_esd", *words], check=True, capture_output=True)

        with pytest.raises(RefusedError, match=f"there is a device {target.device} already"):
            await sharing.share(crew, target, sharing.Wanted(("hostB",), Handler.ON_DEMAND), be_quicker)
    guest.leave_terminal()
    await guest.is_well()
    assert guest.disk()["type"] == "file"
    told = (await say("device", "show", target.device, "--json")).json
    assert (told["broken_off"], [place["path_handler"] for place in told["places"]]) == (False, ["running", "running"])
    assert (await say("device", "delete", target.device, "--yes")).status == 0


async def while_it_is_shut_off(guest: Domain, there: Machine) -> None:
    """Nobody is asked, and what is below the image is told by its header. A second device is attached when it runs."""
    here = guest.machine
    guest.virsh("destroy", "web1")
    guest.leave_terminal()
    image = guest.disk("--inactive")["file"]
    told = await say("share", "web1", "--host", "hostA", "--with", "hostB", "--json")
    assert told.status == 0, told.err
    assert guest.disk("--inactive")["type"] == "network"
    guest.console.skip()
    guest.virsh("start", "web1")
    await guest.settle_in(booted=True)
    assert (await say("device", "create", "d2", "--size", "1M", "--host", "hostA,hostB")).status == 0
    said = await say("device", "attach", "d2", "web1", "--host", "hostA")
    assert said.out == "d2 is vdb of web1\n", said
    for flags in ((), ("--inactive",)):
        assert "vdb d2" in " ".join(guest.virsh("domblklist", "web1", *flags).split())
    assert guest.move_plainly(there) == ""
    await guest.is_well()
    guest.virsh("destroy", "web1")
    guest.leave_terminal()
    guest.machine = here
    undo = await say("share", "web1", "vda", "--host", "hostA", "--undo", "--json")
    assert (undo.status, undo.json["image"]) == (0, image), undo
    assert guest.disk("--inactive") == {"type": "file", "file": image}
