"""A domain of libvirt before it moves: what both libvirts say, and what stands in its way. Nothing is touched."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from qemu_esd.errors import RefusedError
from qemu_esd.hosts.base import Host, run, shell
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors.cmdline.carried import Carried, NeededPath
from qemu_esd.hypervisors.libvirt import acts
from qemu_esd.hypervisors.libvirt.domain import Domain
from qemu_esd.model.plan import DomainTarget, Problem, Transport
from qemu_esd.model.policy import Handler
from qemu_esd.model.request import Request
from qemu_esd.model.vm import Guest
from qemu_esd.phases.context import Monitors

# Where libvirt may label images, and where its users look for them.
FOLDER = "/var/lib/libvirt/images"
# The certificates for libvirt's own TLS of a guest's memory lie where qemu.conf says, or where it looks by itself.
_CERTIFICATES = r"""
told() { sed -n "s/^ *$1 *= *\"\(.*\)\".*/\1/p" /etc/libvirt/qemu.conf 2>/dev/null; }
end=$1
set -- "$(told migrate_tls_x509_cert_dir)" "$(told default_tls_x509_cert_dir)"
for folder in "$@" /etc/pki/libvirt-migrate /etc/pki/qemu; do
    if [ -n "$folder" ] && [ -e "$folder/ca-cert.pem" ]; then
        if [ "$end" = source ] || [ -e "$folder/server-cert.pem" ]; then echo yes; exit; fi
    fi
done
"""


@dataclass(frozen=True)
class DomainView:
    """A domain and the two libvirts. `known` are names by which the target's has one like it already."""

    domain: Domain
    target: DomainTarget
    known: tuple[str, ...]
    has_tls: tuple[bool, bool]
    has_virsh: bool


async def look(hosts: Hosts, monitors: Monitors, guest: Guest, request: Request) -> DomainView:
    """Raises RefusedError, HostError, LibvirtError."""
    source, target = await hosts.get(guest.host), await hosts.get(request.target)
    here, there = await asyncio.gather(monitors.libvirt(source.name), monitors.libvirt(target.name))
    domain = await here.domain(guest.name)
    if domain is None:
        raise RefusedError(f"libvirt does not know {guest.name} any more", host=source.name, hint="see: virsh list")
    owner, usual, known, tls, virsh = await asyncio.gather(
        _owner(source, guest),
        acts.usual_owner(there),
        acts.known(there, guest.name, guest.uuid),
        asyncio.gather(_has_certificates(source, "source"), _has_certificates(target, "target")),
        target.attempt(("sh", "-c", "command -v virsh")),
    )
    configuration = domain.configuration
    own = configuration.owner if configuration.own_owner else None
    will_be = DomainTarget(domain.persistent, owner, own or usual or owner, request.read_errors)
    return DomainView(domain, will_be, known, tls, virsh.status == 0)


async def _owner(host: Host, guest: Guest) -> str:
    """The user of its QEMU, by what the kernel says."""
    return (await run(host, ("stat", "-c", "%u:%g", f"/proc/{guest.process.pid}"))).text.strip()


async def _has_certificates(host: Host, end: str) -> bool:
    return (await shell(host, _CERTIFICATES, end)).text.strip() == "yes"


def carried(view: DomainView) -> Carried:
    """What a bare guest's command line is: what of it cannot be carried over, and what has to be there."""
    configuration = view.domain.configuration
    files = tuple(NeededPath(path, "file", "its description") for path in configuration.files)
    doubts = tuple(
        f"{disk.target}, a disk of the kind {disk.chain[0].kind} that nobody says is shared"
        for disk in configuration.disks
        if disk.is_in_doubt
    )
    return Carried((), (*view.domain.obstacles(), *doubts), tuple(_remarks(view)), files)


def _remarks(view: DomainView) -> Iterator[str]:
    if not view.domain.persistent:
        yield "it is transient: when it ends, nothing of it is left in libvirt, on either host"
    yield from view.domain.configuration.doubts("moving a domain", "/run/qemu-esd/guest", "*/*")


def problems(view: DomainView, guest: Guest, request: Request) -> Iterator[Problem]:
    """Every one that a bare guest has not."""
    name, here, there = guest.name, guest.host, request.target
    for known in view.known:
        hint = f"if nobody needs it, on {there}: virsh undefine {shlex.quote(known)}"
        yield Problem(there, f"its libvirt has a domain {known} already", hint)
    if not view.has_virsh:
        yield Problem(there, "there is no virsh", "on it: apt-get install libvirt-clients")
    if not request.local_space:
        yield Problem(
            there, f"{name} is a domain of libvirt, and cannot do without local space", "leave out the option"
        )
    for disk in guest.disks:
        if request.handler_of(disk) is Handler.MISS:
            what = f"libvirt has no word for a disk like {disk.id} of which reads may miss"
            yield Problem(here, what, f"another policy for it: --disk-policy {disk.id}=redirect")
    if request.transport is Transport.TLS:
        yield from _tls(view, here, there)


def _tls(view: DomainView, here: str, there: str) -> Iterator[Problem]:
    for host, able in zip((here, there), view.has_tls, strict=True):
        if not able:
            what = "its libvirt has no certificates to encrypt the guest's memory by"
            hint = "--transport ssh encrypts it by ssh; --plaintext does not; or make them, as libvirt.org tells"
            yield Problem(host, what, hint)
