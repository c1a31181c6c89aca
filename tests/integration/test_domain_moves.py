"""Domains of libvirt move: by libvirt's own tools, and by what the guest says, everything is as it should be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from images.build import GuestImage
from images.pattern import MIB
from qemu_esd.hosts import lab
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.model.vm import Kind
from qemu_esd.phases.links import go_on_of
from qemu_esd.qmp.session import open_session
from tests.integration.support import content
from tests.integration.support.certificates import with_certificates
from tests.integration.support.commands import say
from tests.integration.support.domain import IMAGES, Domain, booted, disk, nothing_left
from tests.integration.support.drives import Drive
from tests.integration.support.machine import SRV, Machine
from tests.support.small_disk import SmallDisk, small_disk

pytestmark = pytest.mark.lab

Hosts = tuple[lab.LabHost, ...]
CHAIN, RAW = Drive("vda", 7, "a.qcow2", size=32 * MIB, chain=1), Drive("sda", 9, size=8 * MIB)
# The guest's kernel has no driver for it.
SATA = Drive("sdc", 11, "c.qcow2", size=8 * MIB, chain=1)
CDROM = """<disk type="file" device="cdrom"><driver name="qemu" type="raw"/>
  <source file="/srv/cd.iso"/><target dev="sdb" bus="scsi"/><readonly/></disk>"""


def disks(domain: Domain, *flags: str) -> dict[str | None, Any]:
    """Per disk: its image, what is below it, and whether reads are kept."""
    found = dict[str | None, Any]()
    for each in domain.dumpxml(*flags).iterfind("devices/disk[@device='disk']"):
        target, source, driver = each.find("target"), each.find("source"), each.find("driver")
        assert target is not None and source is not None and driver is not None
        below = each.find("backingStore/source/host")
        socket = None if below is None else below.get("socket")
        found[target.get("dev")] = (source.get("file"), socket, driver.get("copy_on_read"))
    return found


async def test_a_domain_moves_and_libvirt_knows(libvirt_hosts: Hosts, guest_image: GuestImage, tmp_path: Path) -> None:
    SATA.make(Machine(libvirt_hosts[0]))
    async with booted(libvirt_hosts, guest_image, CHAIN, RAW, disks=CDROM + disk(SATA, "sata")) as (web1, b):
        a, seen = web1.machine, await web1.disks()
        words = ("migrate", "web1", "hostB", "--from", "hostA", "--transport", "ssh", "--json")
        moved = await say(*words, "--policy", "on-demand", "--disk-policy", "sda=redirect")
        assert moved.status == 0, moved.err
        web1.arrived(b)
        await web1.is_well()
        await web1.sees(seen)
        assert a.run("virsh", "--quiet", "list", "--all", "--name").stdout.strip() == ""
        assert a.qemus("web1") == ()
        relay = f"/run/qemu-esd/guest/{moved.json['id']}/nbd.sock"
        files = {each.id: f"{IMAGES}/web1.{web1.suid(each)}.g1.qcow2" for each in (CHAIN, RAW, SATA)}
        kept = {"vda": "on", "sda": "off", "sdc": "on"}
        for flags in ((), ("--inactive",)):
            assert disks(web1, *flags) == {id: (file, relay, kept[id]) for id, file in files.items()}
        assert web1.images() == {**files, "sdb": f"{SRV}/cd.iso"}

        told = (await say("status", "web1", "--json")).json["vms"][0]
        assert (told["host"], told["link"], told["run_state"]) == ("hostB", "up", "running")
        partly = {each["disk"]: 0 < each["local_bytes"] < each["virtual_bytes"] for each in told["disks"]}
        assert partly == {"vda": True, "sda": True, "sdc": False}
        assert "remote" in (await say("map", "web1", "vda")).out
        await draws_the_relay(b, moved.json["id"], set(files.values()), tmp_path / "graph.svg")
        for id, policy in (("vda", "redirect"), ("vda", "miss"), ("sda", "on-demand")):
            refused = await say("policy", "web1", id, policy)
            assert (refused.status, "libvirt cannot be told" in refused.err) == (3, True), refused

        settled = await say("settle", "web1", "--json")
        assert settled.status == 0, settled.err
        await web1.is_well()
        assert disks(web1) == {id: (file, None, kept[id]) for id, file in files.items()}
        assert disks(web1, "--inactive") == {id: (file, None, None) for id, file in files.items()}
        assert web1.virsh("blockjob", "web1", "vda") == ""
        assert a.path_handlers() == b.path_handlers() == ()
        assert (await say("release", "web1")).status == 0
        nothing_left(a, b)
        await web1.pause()
        await web1.recheck()

        web1.virsh("destroy", "web1")
        for drive in (*web1.drives, SATA):
            content.check_standalone(web1.member_of(drive))
            content.check_content(
                content.flatten(content.image(web1.member_of(drive), "qcow2"), tmp_path / "flat"), drive
            )
        web1.leave_terminal()
        web1.virsh("start", "web1")
        await web1.starts_anew()
        await plain_migration_back(web1, a)


async def draws_the_relay(b: Machine, migration: str, files: set[str], picture: Path) -> None:
    """Also while somebody changes what it answers, and in its place when it cannot be asked."""
    folder = f"/run/qemu-esd/link/{migration}"
    async with open_hosts() as hosts, open_session(await hosts.get(b.name), f"{folder}/relay.sock", "held"):
        graph = (await say("graph", "web1", "--json")).json
    programs, readings = graph["programs"], graph["readings"]
    assert [(one["kind"], one["host"]) for one in programs] == [
        ("guest", "hostB"),
        ("relay", "hostB"),
        ("path handler", "hostA"),
    ]
    assert files < {node["file"] for node in programs[0]["nodes"]}, programs
    # Each of its disks: the domain's QEMU asks the relay, and that the path handler, for the same device.
    ways = [[(one["program"], one["of"]) for one in readings if one["export"] == name] for name in exports(programs[1])]
    assert ways == [[(0, 1), (1, 2)]] * len(files), readings
    assert exports(programs[1]) == exports(programs[2])
    for form, sign in (("", "──▶ relay, export"), ("--dot", "p0n"), ("--mermaid", "p0n")):
        told = (await say("graph", "web1", *filter(None, [form]))).out
        assert (sign in told, f"relay of migration {migration} on hostB" in told) == (True, True), told
    assert (await say("graph", "web1", "--svg", str(picture))).status == 0
    assert picture.read_text().count('class="cross"') == 2 * len(files)
    # What the exports are called on the wire is told by no form of it.
    clients = [node["file"] for one in programs for node in one["nodes"] if node["driver"] == "nbd"]
    assert clients == [None] * 2 * len(files)
    b.run("mv", folder, f"{folder}.away")
    without = (await say("graph", "web1", "--json")).json["programs"]
    b.run("mv", f"{folder}.away", folder)
    problems = [one["problem"] for one in without]
    assert problems == [None, f"hostB: the relay of migration {migration} does not run", None], problems


def exports(program: dict[str, Any]) -> list[str]:
    return [user["name"] for user in program["users"] if user["kind"] == "export"]


async def plain_migration_back(web1: Domain, a: Machine) -> None:
    """As its users do it, who need not know that it has ever been anywhere."""
    for path in web1.images().values():
        if path.endswith(".iso"):
            continue
        size = content.facts(web1.machine.lab.data / "libvirt-state" / path.removeprefix("/var/lib/libvirt/"))
        a.run("qemu-img", "create", "-q", "-f", "qcow2", path, str(size["virtual-size"]))
    words = ("--live", "--copy-storage-all", "--persistent", "--undefinesource", "web1", "qemu+ssh://hostA/system")
    web1.virsh("migrate", *words)
    web1.leave_terminal()
    web1.machine = a
    web1.listen()
    now = await web1.status()
    assert (now.number("err"), web1.state()) == (0, "running")
    assert "web1  hostB  lost\n  the libvirt there has no such domain any more" in (await say("status", "web1")).out


USER = """<seclabel type="static" model="dac" relabel="yes"><label>+64055:+64055</label></seclabel>"""


async def test_a_transient_domain_of_another_user_comes_whole(
    libvirt_hosts: Hosts, guest_image: GuestImage, tmp_path: Path
) -> None:
    """All of it encrypted by TLS; its QEMU may use what it needs, and nothing else of ours."""
    with with_certificates([Machine(host) for host in libvirt_hosts], tmp_path):
        async with booted(libvirt_hosts, guest_image, CHAIN, more=USER, persistent=False) as (web1, b):
            a = web1.machine
            moved = await say("migrate", "web1", "hostB", "--from", "hostA", "--policy", "on-demand", "--json")
            assert moved.status == 0, moved.err
            web1.arrived(b)
            await web1.is_well()
            assert web1.member_of(CHAIN).stat().st_uid == 64055
            assert a.path(f"{CHAIN.path}.moved-{moved.json['id']}").stat().st_uid == 0
            as_user = ("setpriv", "--reuid=64055", "--regid=64055", "--clear-groups")
            for path in ("/run/qemu-esd/link", "/run/qemu-esd", "/var/lib/qemu-esd"):
                assert b.run(*as_user, "ls", path, check=False).returncode != 0, path
            changed = await say("policy", "web1", "background", "--json")
            assert changed.status == 0, changed.err
            settled = await say("settle", "web1", "--json")
            assert settled.status == 0, settled.err
            assert disks(web1) == {"vda": (f"{IMAGES}/web1.{web1.suid(CHAIN)}.g1.qcow2", None, "on")}
            await web1.is_well()
            await web1.pause()
            await web1.recheck()
            assert (await say("release", "web1")).status == 0
            nothing_left(a, b)
            web1.virsh("destroy", "web1")
            content.check_standalone(web1.member_of(CHAIN))


async def waits_for_room(web1: Domain, room: SmallDisk) -> None:
    """Also the watch of the link leaves it alone meanwhile."""
    room.fill()
    async with asyncio.timeout(60):
        while web1.virsh("domstate", "--reason", "web1") != "paused (I/O error)":
            await asyncio.sleep(0.1)
    look = web1.machine.run("perl", "-e", go_on_of(Kind.DOMAIN, "libvirt:web1").program, "libvirt:web1", check=False)
    assert (look.returncode, web1.state()) == (0, "paused"), look
    await what_status_names_lets_it_run(web1)
    room.make_room()
    web1.virsh("resume", "web1")
    await web1.is_well()


async def what_status_names_lets_it_run(web1: Domain) -> None:
    """`vm cont`, which is for bare guests, is refused."""
    told = (await say("status", "web1")).out
    assert ("to let it run, on hostB: virsh resume web1" in told, "vm cont" in told) == (True, False), told
    assert (await say("vm", "cont", "web1")).status == 3
    assert web1.state() == "paused"


async def paused_by_its_owner(web1: Domain) -> None:
    web1.virsh("suspend", "web1")
    told = (await say("status")).out
    assert ("paused" in told, "virsh resume" in told) == (True, True), told
    await what_status_names_lets_it_run(web1)
    web1.virsh("resume", "web1")
    await web1.is_well()


async def test_on_and_home_before_it_is_settled(libvirt_hosts: Hosts, guest_image: GuestImage) -> None:
    with small_disk(Machine(libvirt_hosts[1]), IMAGES, "192M") as room:
        await on_and_home(libvirt_hosts, guest_image, room)


async def on_and_home(hosts: Hosts, image: GuestImage, room: SmallDisk) -> None:
    async with booted(hosts, image, CHAIN) as (web1, b):
        a = web1.machine
        for source, target in ((a, b), (b, a)):
            words = ("--from", source.name, "--policy", "on-demand", "--plaintext", "--yes")
            moved = await say("migrate", "web1", target.name, *words)
            assert moved.status == 0, moved.err
            web1.arrived(target)
            await web1.is_well()
            if target is b:
                await waits_for_room(web1, room)
                await paused_by_its_owner(web1)
        settled = await say("settle", "web1")
        assert settled.status == 0, settled.err
        assert disks(web1) == {"vda": (f"{IMAGES}/web1.{web1.suid(CHAIN)}.g2.qcow2", None, "on")}
        await web1.pause()
        await web1.recheck()
        assert (await say("release", "web1")).status == 0
        nothing_left(a, b)
