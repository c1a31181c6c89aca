"""Domains of libvirt: told apart from other QEMUs, and left in peace, with what their libvirt says of them."""

from __future__ import annotations

import asyncio

import libvirt
import pytest

from qemu_esd import guests
from qemu_esd.errors import HostError, LibvirtError
from qemu_esd.hosts import lab
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.hypervisors.libvirt.connection import open_libvirt
from tests.integration.support.commands import say
from tests.lab.tools import on
from tests.support.domains import SOCKET, running

pytestmark = pytest.mark.lab

Hosts = tuple[lab.LabHost, ...]
MIGRATE = ("migrate", "web1", "hostB", "--from", "hostA", "--policy", "on-demand")


async def test_a_domain_is_refused_with_what_libvirt_says_of_it(libvirt_hosts: Hosts) -> None:
    async with running(libvirt_hosts[0]) as domain:
        before = await asyncio.to_thread(domain.XMLDesc)
        for words in (MIGRATE, (*MIGRATE, "--dry-run")):
            said = await say(*words)
            assert said.status == 3, said.err
            told = " ".join((said.out + said.err).split())
            assert "hostA: web1 is a domain of libvirt, and domains are not moved yet" in told
            assert "it is running, persistent; vda: qcow2 /srv/web1.qcow2" in told
            assert "--live --copy-storage-all web1 qemu+ssh://hostB/system" in told
        assert await asyncio.to_thread(domain.XMLDesc) == before
        assert await asyncio.to_thread(domain.state) == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED]


async def test_what_binds_it_to_its_host_is_named(libvirt_hosts: Hosts) -> None:
    async with running(libvirt_hosts[0]):
        await on(libvirt_hosts[0], "virsh", "snapshot-create-as", "web1", "s1", "--disk-only")
        told = " ".join((await say(*MIGRATE)).err.split())
    assert "vda: qcow2 /srv/web1.s1 over qcow2 /srv/web1.qcow2; bound to its host by 1 snapshot" in told


async def test_listed_as_libvirts(libvirt_hosts: Hosts) -> None:
    async with running(libvirt_hosts[0]):
        await on(libvirt_hosts[0], "sh", "-c", "qemu-img create -q -f raw /srv/a.img 1M")
        ours = ("vm", "run", "mine", "--host", "hostA", "--disk", "/srv/a.img,format=raw", "--memory", "64M")
        assert (await say(*ours)).status == 0
        async with open_hosts() as hosts:
            seen = await guests.list_all(hosts, ["hostA"])
        assert {each.name: each.keeper for each in seen} == {
            "web1": guests.Keeper.LIBVIRT,
            "mine": guests.Keeper.OURS,
        }
        assert (await say("vm", "stop", "--force", "mine")).status == 0
        assert (await say("vm", "forget", "mine")).status == 0


async def test_without_a_libvirtd_it_is_still_refused(libvirt_hosts: Hosts) -> None:
    async with running(libvirt_hosts[0]):
        await on(libvirt_hosts[0], "mv", SOCKET, f"{SOCKET}.away")
        said = await say(*MIGRATE)
        await on(libvirt_hosts[0], "mv", f"{SOCKET}.away", SOCKET)
    assert said.status == 3
    assert "could not be asked about it: no libvirtd listens there" in " ".join(said.err.split())


async def test_what_libvirt_answers_with_is_an_error_with_its_words(libvirt_hosts: Hosts) -> None:
    async with open_hosts() as hosts, open_libvirt(await hosts.get("hostA")) as there:
        assert await there.domain("nobody") is None
        await on(libvirt_hosts[0], "pkill", "--signal", "KILL", "--exact", "libvirtd")
        with pytest.raises(LibvirtError, match="hostA: libvirt, asked for what web1 is: "):
            await there.domain("web1")
    async with open_hosts() as hosts:
        await on(libvirt_hosts[1], "mv", SOCKET, f"{SOCKET}.away")
        with pytest.raises(HostError, match="hostB: no libvirtd listens there") as caught:
            async with open_libvirt(await hosts.get("hostB")):
                pass
        await on(libvirt_hosts[1], "mv", f"{SOCKET}.away", SOCKET)
    assert caught.value.hint
