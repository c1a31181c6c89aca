"""Domains of libvirt that cannot move, each with what keeps it; and what is told where libvirt cannot be asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qemu_esd import listing
from qemu_esd.errors import HostError
from qemu_esd.hosts import lab
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.hypervisors.libvirt.connection import open_libvirt
from tests.integration.support.commands import Said, end, say, start
from tests.lab.tools import on
from tests.support.domains import DAEMON, WEB1, running, socket

pytestmark = pytest.mark.lab

Hosts = tuple[lab.LabHost, ...]
MIGRATE = ("migrate", "web1", "hostB", "--from", "hostA", "--policy", "on-demand", "--transport", "ssh")
CDROM = """<disk type="file" device="cdrom"><source file="/srv/cd.iso"/><target dev="sda" bus="sata"/></disk>
<disk type="block" device="disk"><source dev="/dev/null"/><target dev="vdb" bus="virtio"/></disk></devices>"""


async def define(host: lab.LabHost, xml: str) -> None:
    await on(host, "sh", "-ec", 'printf %s "$1" >/srv/d.xml; virsh define /srv/d.xml', "sh", xml)


def told(said: Said) -> str:
    return " ".join((said.out + said.err).split())


async def test_all_that_stands_in_the_way_is_named(libvirt_hosts: Hosts) -> None:
    here, there = libvirt_hosts
    async with running(here):
        await on(here, "virsh", "snapshot-create-as", "web1", "s1", "--disk-only")
        await define(there, WEB1)
        before = await on(here, "virsh", "dumpxml", "web1")
        for words in (MIGRATE, (*MIGRATE, "--dry-run")):
            said = await say(*words, "--disk-policy", "vda=miss")
            assert said.status == 3, said.err
            for problem in (
                "hostA: 1 snapshot",
                "hostB: its libvirt has a domain web1 already",
                "hostA: libvirt has no word for a disk like vda of which reads may miss",
            ):
                assert problem in told(said), said
        tls = told(await say(*MIGRATE[:-2]))
        assert "hostB: its libvirt has no certificates to encrypt the guest's memory by" in tls
        assert "--transport ssh" in tls
        assert await on(here, "virsh", "dumpxml", "web1") == before
        assert (await on(here, "virsh", "domstate", "web1")).split() == ["running"]


async def test_media_have_to_be_there_and_other_disks_to_be_shared(libvirt_hosts: Hosts) -> None:
    here = libvirt_hosts[0]
    await on(here, "sh", "-ec", "qemu-img create -q -f qcow2 /srv/web1.qcow2 64M; truncate -s 1M /srv/cd.iso")
    await define(here, WEB1.replace("</devices>", CDROM))
    await on(here, "virsh", "start", "web1", "--paused")
    said = told(await say(*MIGRATE))
    assert "hostB: the file /srv/cd.iso (its description) is not there" in said
    assert "hostA: vdb, a disk of the kind block that nobody says is shared" in said


async def test_listed_and_asked_as_libvirts(libvirt_hosts: Hosts, tmp_path: Path) -> None:
    async with running(libvirt_hosts[0]):
        await asked(libvirt_hosts[0], tmp_path / "record")
        await on(libvirt_hosts[0], "sh", "-c", "qemu-img create -q -f raw /srv/a.img 1M")
        ours = ("vm", "run", "mine", "--host", "hostA", "--disk", "/srv/a.img,format=raw", "--memory", "64M")
        assert (await say(*ours)).status == 0
        async with open_hosts() as hosts:
            seen = await listing.list_all(hosts, ["hostA"])
        assert {each.name: each.keeper for each in seen} == {
            "web1": listing.Keeper.LIBVIRT,
            "mine": listing.Keeper.OURS,
        }
        assert (await say("vm", "stop", "--force", "mine")).status == 0
        assert (await say("vm", "forget", "mine")).status == 0


async def asked(host: lab.LabHost, record: Path) -> None:
    """Its QEMU, by its libvirt: a command, events, and what libvirt is not told of."""
    ask = ("qmp", "web1", "--host", "hostA")
    assert (await say(*ask, "query-status", "--trace", str(record))).json["status"] == "running"
    assert [json.loads(line)["from"] for line in record.read_text().splitlines()][-2:] == ["us", "qemu"]
    refused = await say(*ask, "stop")
    assert (refused.status, "libvirt is not told of what is changed in the QEMU of web1" in refused.err) == (3, True)
    listening = await start(*ask, "--events", "--count", "2")
    assert listening.stderr is not None
    assert (await listening.stderr.readline()).startswith(b"events of web1 on hostA")
    for word in ("suspend", "resume"):
        await on(host, "virsh", word, "web1")
    events = [json.loads(line) for line in (await end(listening)).out.splitlines()]
    assert [event["event"] for event in events] == ["STOP", "RESUME"]
    assert events[0]["time"] < events[1]["time"]


async def test_without_a_libvirtd_it_is_refused(libvirt_hosts: Hosts) -> None:
    async with running(libvirt_hosts[0]):
        for host in libvirt_hosts:
            listens = socket(host)
            await on(host, "mv", listens, f"{listens}.away")
            said = await say(*MIGRATE)
            await on(host, "mv", f"{listens}.away", listens)
            assert said.status == 3
            assert f"{host.name}: neither virtqemud nor libvirtd listens there" in told(said)


async def test_a_libvirtd_that_was_started_again_is_found_again(libvirt_hosts: Hosts) -> None:
    async with open_hosts() as hosts, open_libvirt(await hosts.get("hostA")) as there:
        assert await there.domain("nobody") is None
        await on(libvirt_hosts[0], "pkill", "--signal", "KILL", "--exact", DAEMON)
        assert await there.domain("nobody") is None
    async with open_hosts() as hosts:
        listens = socket(libvirt_hosts[1])
        await on(libvirt_hosts[1], "mv", listens, f"{listens}.away")
        with pytest.raises(HostError, match="hostB: neither virtqemud nor libvirtd listens there") as caught:
            async with open_libvirt(await hosts.get("hostB")):
                pass
        await on(libvirt_hosts[1], "mv", f"{listens}.away", listens)
    assert caught.value.hint
