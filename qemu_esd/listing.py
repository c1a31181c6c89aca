"""Every QEMU that runs on hosts, and who looks after it. Nothing is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from qemu_esd.errors import EsdError, TimedOutError
from qemu_esd.hosts import facts, lab
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts, open_hosts
from qemu_esd.hypervisors import processes, records
from qemu_esd.hypervisors.cmdline.monitors import is_libvirts
from qemu_esd.hypervisors.cmdline.reader import read
from qemu_esd.journal import registry
from qemu_esd.model.host import HostPaths
from qemu_esd.model.vm import QemuProcess

LIST_SECONDS = 30.0


class Keeper(StrEnum):
    """Who looks after a QEMU."""

    OURS = "qemu-esd"  # we know it by its record
    LIBVIRT = "libvirt"
    OTHER = "-"


@dataclass(frozen=True)
class Seen:
    """A QEMU on a host."""

    host: str
    name: str
    pid: int
    keeper: Keeper


async def list_all(hosts: Hosts, host_names: Iterable[str]) -> list[Seen]:
    """Every QEMU that runs on these hosts."""
    seen = []
    for name in host_names:
        host = await hosts.get(name)
        paths = (await facts.look(host)).paths
        for process in await processes.find_all(host):
            seen.append(Seen(name, process.name or "?", process.pid, await _keeper(host, paths, process)))
    return seen


async def _keeper(host: Host, paths: HostPaths, process: QemuProcess) -> Keeper:
    # A name that is none was found in words that cannot be read.
    if not process.name:
        return Keeper.OTHER
    if is_libvirts(read(process.argv).options):
        return Keeper.LIBVIRT
    return Keeper.OTHER if await records.guest(host, paths, process.name) is None else Keeper.OURS


def known_hosts() -> tuple[str, ...]:
    """This machine, the lab's hosts, and those that guests known here were seen on."""
    lab_hosts = (host.name for host in lab.status().hosts)
    seen = (host for guest in registry.everything() for host in guest.hosts)
    return tuple(dict.fromkeys(["local", *lab_hosts, *seen]))


async def list_everywhere(host_names: Iterable[str]) -> tuple[tuple[Seen, ...], tuple[EsdError, ...]]:
    """Every QEMU on these hosts, asked side by side, and what keeps hosts from answering."""
    answers = await asyncio.gather(*(_list_one(name) for name in dict.fromkeys(host_names)))
    seen = [row for answer in answers if not isinstance(answer, EsdError) for row in answer]
    return tuple(seen), tuple(answer for answer in answers if isinstance(answer, EsdError))


async def _list_one(name: str) -> list[Seen] | EsdError:
    try:
        async with asyncio.timeout(LIST_SECONDS), open_hosts() as hosts:
            return await list_all(hosts, (name,))
    except TimeoutError:
        return TimedOutError("an answer", LIST_SECONDS, host=name)
    except EsdError as error:
        return error
