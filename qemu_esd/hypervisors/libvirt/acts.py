"""What is done to a domain, in libvirt's own words. Each call is by name and UUID: another domain of that name is left
alone. Done already is fine.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from qemu_esd.errors import EsdError, LibvirtError, TimedOutError
from qemu_esd.hypervisors.libvirt import events
from qemu_esd.hypervisors.libvirt.connection import Connection

# The end of a pull that finds nothing but holes.
PULL_SECONDS = 600.0


@dataclass(frozen=True)
class Description:
    """The XML of a domain with all its secrets: as it runs, and as it is defined (None: it is transient)."""

    live: str
    persistent: str | None


@dataclass(frozen=True)
class Move:
    """How a domain moves: as what, where its memory goes, whether by libvirt's TLS, how long it may stand still.

    `listen` is the one address on which the target waits for it; None where that is a unix socket.
    """

    description: Description
    uri: str
    listen: str | None
    tls: bool
    downtime_ms: int | None = None


async def describe(libvirt: Connection, name: str) -> Description:
    """Raises LibvirtError."""
    flags = libvirt.binding.VIR_DOMAIN_XML_SECURE | libvirt.binding.VIR_DOMAIN_XML_MIGRATABLE
    inactive = libvirt.binding.VIR_DOMAIN_XML_SECURE | libvirt.binding.VIR_DOMAIN_XML_INACTIVE

    def ask(raw: Any) -> Description:
        domain = raw.lookupByName(name)
        return Description(domain.XMLDesc(flags), domain.XMLDesc(inactive) if domain.isPersistent() else None)

    return await libvirt.call(f"the description of {name}", ask)


async def move(here: Connection, there: Connection, name: str, how: Move) -> None:
    """Returns when libvirt has moved the domain, which is paused there, and has ended it here. Raises LibvirtError.

    It is libvirt that stops the guest here and loads it there; the event of that comes first.
    """
    binding, other = here.binding, await there.raw()
    flags = binding.VIR_MIGRATE_LIVE | binding.VIR_MIGRATE_UNSAFE | binding.VIR_MIGRATE_PAUSED
    words = {binding.VIR_MIGRATE_PARAM_DEST_XML: how.description.live, binding.VIR_MIGRATE_PARAM_URI: how.uri}
    if how.description.persistent is not None:
        flags |= binding.VIR_MIGRATE_PERSIST_DEST | binding.VIR_MIGRATE_UNDEFINE_SOURCE
        words[binding.VIR_MIGRATE_PARAM_PERSIST_XML] = how.description.persistent
    if how.listen is not None:
        words[binding.VIR_MIGRATE_PARAM_LISTEN_ADDRESS] = how.listen
    if how.tls:
        flags |= binding.VIR_MIGRATE_TLS

    def lead(raw: Any) -> None:
        domain = raw.lookupByName(name)
        if how.downtime_ms:
            domain.migrateSetMaxDowntime(how.downtime_ms)
        domain.migrate3(other, words, flags)

    await here.call(f"the move of {name}", lead, None)


async def abort(libvirt: Connection, name: str) -> None:
    """End the move of a domain, which goes on where it is then. None under way is fine."""
    with suppress(LibvirtError):
        await libvirt.call(f"the end of the move of {name}", lambda raw: raw.lookupByName(name).abortJob())


async def resume(libvirt: Connection, name: str) -> None:
    """Let it run. Raises LibvirtError."""
    await libvirt.call(f"{name} to run", lambda raw: raw.lookupByName(name).resume())


async def start_paused(libvirt: Connection, name: str) -> None:
    """Start a domain that is defined and shut off."""
    flags = libvirt.binding.VIR_DOMAIN_START_PAUSED
    await libvirt.call(f"the start of {name}", lambda raw: raw.lookupByName(name).createWithFlags(flags))


async def bring_back(libvirt: Connection, what: Description) -> None:
    """Define the domain again, if it was defined, and start it."""

    def act(raw: Any) -> None:
        if what.persistent is None:
            raw.createXML(what.live, 0)
            return
        domain = raw.defineXML(what.persistent)
        if not domain.isActive():
            domain.create()

    await libvirt.call("the start of a domain", act)


async def end(libvirt: Connection, uuid: str) -> None:
    """It runs no more there, and is defined no more."""

    def act(raw: Any) -> None:
        domain = raw.lookupByUUIDString(uuid)
        if domain.isActive():
            domain.destroy()
        if domain.isPersistent():
            domain.undefine()

    try:
        await libvirt.call(f"the end of the domain {uuid}", act)
    except LibvirtError as error:
        # Also one that ends meanwhile by itself.
        if error.code != libvirt.binding.VIR_ERR_NO_DOMAIN and await has(libvirt, uuid):
            raise


async def has(libvirt: Connection, uuid: str) -> bool:
    """Whether there is a domain of that UUID, running or only defined."""
    return await _exists(libvirt, lambda raw: raw.lookupByUUIDString(uuid))


async def known(libvirt: Connection, name: str, uuid: str) -> tuple[str, ...]:
    """The names of domains that are called so, or have that UUID."""

    def act(raw: Any) -> tuple[str, ...]:
        return tuple(each.name() for each in raw.listAllDomains() if each.name() == name or each.UUIDString() == uuid)

    return await libvirt.call("its domains", act)


async def _exists(libvirt: Connection, look: Callable[[Any], Any]) -> bool:
    def act(raw: Any) -> bool:
        try:
            look(raw)
        except libvirt.binding.libvirtError as error:
            if error.get_error_code() == libvirt.binding.VIR_ERR_NO_DOMAIN:
                return False
            raise
        return True

    return await libvirt.call("a domain", act)


async def pull(libvirt: Connection, name: str, disk: str) -> None:
    """libvirt's own detach of all that is below the top image of a disk. One that is under way is joined.

    Raises EsdError if it fails.
    """
    with libvirt.events.listening(name, events.BLOCK_JOB) as listener:
        job = await libvirt.call(f"the job of {disk}", lambda raw: raw.lookupByName(name).blockJobInfo(disk, 0))
        if not job:
            await libvirt.call(f"the pull of {disk}", lambda raw: raw.lookupByName(name).blockPull(disk, 0, 0))
        try:
            await _wait(listener, disk)
        except TimeoutError as error:
            raise TimedOutError(f"the end of the pull of {disk}", PULL_SECONDS, host=libvirt.host) from error


async def _wait(listener: events.Listener, disk: str) -> None:
    async with asyncio.timeout(PULL_SECONDS):
        while True:
            told = (await listener.get())["data"]
            # 0: completed, 3: ready; libvirt says more of them beside.
            if told["disk"] == disk and told["status"] == 0:
                return
            if told["disk"] == disk and told["status"] in (1, 2):
                raise EsdError(f"libvirt could not pull {disk}", hint="virsh blockpull tells why")


async def redefine(libvirt: Connection, name: str, change: Callable[[str], str]) -> None:
    """Change the definition of a domain, if it has one; how it runs is left alone."""
    flags = libvirt.binding.VIR_DOMAIN_XML_SECURE | libvirt.binding.VIR_DOMAIN_XML_INACTIVE

    def act(raw: Any) -> None:
        domain = raw.lookupByName(name)
        if domain.isPersistent():
            raw.defineXML(change(domain.XMLDesc(flags)))

    await libvirt.call(f"another definition of {name}", act)


_BASELABEL = re.compile(r"<model>dac</model>.*?<baselabel type='(?:kvm|qemu)'>([^<]*)</baselabel>", re.DOTALL)


async def usual_owner(libvirt: Connection) -> str | None:
    """The user, "uid:gid", of a QEMU for which nobody names another; None where libvirt does not say."""
    told = await libvirt.call("its capabilities", lambda raw: raw.getCapabilities())
    found = _BASELABEL.search(told)
    return found[1].replace("+", "") if found else None
