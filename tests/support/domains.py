"""Domains of libvirt on lab hosts, by libvirt's own tools and API, and nothing of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import libvirt

# With it, before another libvirt is laid over the machine's (--qemu=trixie): the two must be of one build.
import libvirt_qemu  # noqa: F401

from qemu_esd.hosts import lab
from qemu_esd.hosts.lab.libvirt import DAEMONS
from tests.lab.tools import on

# The names of daemons for pkill, of which a host has one.
DAEMON = "|".join(DAEMONS)
# With ACPI, because libvirt 9.0 says -no-acpi otherwise, which QEMU 10.0 does not know any more.
WEB1 = """<domain type="qemu">
  <name>web1</name> <memory unit="MiB">64</memory>
  <os><type arch="x86_64" machine="q35">hvm</type></os>
  <features><acpi/></features>
  <devices>
    <disk type="file" device="disk">
      <driver name="qemu" type="qcow2"/> <source file="/srv/web1.qcow2"/> <target dev="vda" bus="virtio"/>
    </disk>
  </devices>
</domain>
"""


def socket(host: lab.LabHost) -> str:
    """Where its libvirt listens."""
    assert host.init is not None
    root = f"/proc/{host.init.pid}/root"
    return next(path for path in DAEMONS.values() if Path(root + path).exists())


@asynccontextmanager
async def connected(host: lab.LabHost) -> AsyncIterator[libvirt.virConnect]:
    """The host's libvirt by the API from here, over our own ssh connection. Its calls block, so: in threads."""
    async with lab.connect(host) as opened:
        uri = f"qemu+unix:///system?socket={await opened.forward(socket(host))}"
        connection = await asyncio.to_thread(libvirt.open, uri)
        yield connection
        await asyncio.to_thread(connection.close)


@asynccontextmanager
async def running(host: lab.LabHost) -> AsyncIterator[libvirt.virDomain]:
    """The domain web1 with a local qcow2 disk and no system on it, defined and started."""
    await on(host, "qemu-img", "create", "-q", "-f", "qcow2", "/srv/web1.qcow2", "64M")
    async with connected(host) as connection:
        domain = await asyncio.to_thread(connection.defineXML, WEB1)
        await asyncio.to_thread(domain.create)
        yield domain


async def remove_all(host: lab.LabHost) -> None:
    """No domain is left, nor an image."""
    script = """
    for uuid in $(virsh list --uuid); do virsh -q destroy "$uuid"; done
    for uuid in $(virsh list --all --uuid); do
        virsh -q undefine --snapshots-metadata --checkpoints-metadata "$uuid"
    done
    rm -rf /srv/*
    """
    await on(host, "sh", "-ec", script)


class Booted(Protocol):
    """A domain with a guest that works."""

    name: str

    def virsh(self, *words: str) -> str: ...
    async def is_well(self) -> None: ...


async def pauses(guest: Booted) -> bool:
    """Whether libvirt says so of it until it works again."""
    seen, works = set(), asyncio.ensure_future(guest.is_well())
    while not works.done():
        seen.add(await asyncio.to_thread(guest.virsh, "domstate", guest.name))
        await asyncio.wait([works], timeout=0.1)
    await works
    return "paused" in seen


def keeps_reconnect(guest: Booted) -> bool:
    """Whether its libvirt knows the word by which a QEMU waits for a daemon that is started again (9.2 and above)."""
    return "<reconnect " in guest.virsh("dumpxml", guest.name)
