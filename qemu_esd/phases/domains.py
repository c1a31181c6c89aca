"""What is said of a guest that is a domain of libvirt: those are not moved yet."""

from __future__ import annotations

from collections.abc import Iterator

from qemu_esd.errors import EsdError, RefusedError
from qemu_esd.hosts.base import Host
from qemu_esd.hypervisors.libvirt.connection import open_libvirt, uri
from qemu_esd.hypervisors.libvirt.domain import Domain, DomainDisk


async def refusal(host: Host, vm: str, target: str) -> RefusedError:
    """Why the domain `vm` is not moved to `target`: with what its libvirt says of it, or why that says nothing."""
    what = f"{vm} is a domain of libvirt, and domains are not moved yet; {await _told(host, vm)}"
    words = f"virsh --connect {uri(host.name)} migrate --live --copy-storage-all {vm} {uri(target)}"
    return RefusedError(what, host=host.name, hint=f"with all of its disks at once: {words}")


async def _told(host: Host, vm: str) -> str:
    try:
        async with open_libvirt(host) as libvirt:
            domain = await libvirt.domain(vm)
    except EsdError as error:
        return f"its libvirt could not be asked about it: {error.what}"
    return "its libvirt does not know it any more" if domain is None else described(domain)


def described(domain: Domain) -> str:
    """A domain in one line: its state, its disks, and what keeps it where it is."""
    parts = [f"it is {domain.state}, {'persistent' if domain.persistent else 'transient'}"]
    parts += [_disk(disk) for disk in domain.configuration.disks]
    if obstacles := ", ".join(domain.obstacles()):
        parts.append(f"bound to its host by {obstacles}")
    return "; ".join(parts)


def _disk(disk: DomainDisk) -> str:
    return f"{disk.target}: {' '.join(_words(disk))}"


def _words(disk: DomainDisk) -> Iterator[str]:
    if not disk.is_local:
        yield "stays as it is, a" if disk.device == "disk" else f"a {disk.device},"
    yield " over ".join(" ".join(filter(None, (layer.format, layer.place or "empty"))) for layer in disk.chain)
