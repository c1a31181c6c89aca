"""A guest whose QEMU has ended, started again from its disks, wherever their data is.

As after a power cut: what the guest had flushed is there. Its record knows the command line and the disks as they are
now; nothing of an earlier migration is needed but the link, if it still reads through one.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from qemu_esd.errors import EsdError, QemuGoneError, RefusedError
from qemu_esd.graph import names, nodes, stack
from qemu_esd.hosts import files, service
from qemu_esd.hosts.base import Host
from qemu_esd.hypervisors.cmdline import options
from qemu_esd.hypervisors.cmdline.carried import DiskSwap
from qemu_esd.hypervisors.cmdline.carry_disks import swap_disks
from qemu_esd.hypervisors.cmdline.facts import CommandLine
from qemu_esd.hypervisors.cmdline.options import Option
from qemu_esd.hypervisors.cmdline.reader import read
from qemu_esd.model.disk import TlsTcp, images, link_of
from qemu_esd.model.host import HostPaths, guest_sockets
from qemu_esd.model.record import DiskRecord, GuestRecord
from qemu_esd.phases import places
from qemu_esd.qmp.session import open_session


async def start_again(host: Host, paths: HostPaths, record: GuestRecord) -> None:
    """Start the guest's QEMU, stopped: `cont` lets it run. Raises RefusedError if nobody knows how, or QEMU's words."""
    if not record.argv:
        hint = f"qemu-esd vm run {shlex.quote(record.name)} with the words that it was started with"
        raise RefusedError(f"nobody has written down how {record.name} was started", host=host.name, hint=hint)
    kept = [image.path for disk in record.disks for image in (*images(disk.chain), *disk.base)]
    if missing := set(kept) - await files.existing(host, *kept):
        what = f"the image {min(missing)} of {record.name} is gone"
        raise RefusedError(what, host=host.name, hint="put it back; nothing else has what was in it")
    unit = places.guest_unit_name(record.name)
    guest = service.Service(unit, paths.unit(unit), argv_of(record))
    control = guest_sockets(paths, record.name).control
    await service.stop(host, guest.folder, unit)
    await files.make_folders(host, paths.vm_run(record.name))
    await start_qemu(host, record.name, guest, control)


async def start_qemu(host: Host, name: str, guest: service.Service, control: str) -> None:
    """QEMU makes its monitors before it reads its devices: only a greeting tells that it has taken all its words."""
    await service.start_ready(host, guest, control)
    try:
        async with open_session(host, control, name):
            pass
    except QemuGoneError as error:
        words = await service.last_words(host, guest.folder)
        raise EsdError(f"QEMU does not start for {name}: {words}", host=host.name) from error


def argv_of(record: GuestRecord) -> tuple[str, ...]:
    """The command line on which the guest starts from its disks."""
    line = read(record.argv)
    swaps = [_swap(line, disk) for disk in record.disks]
    kept = (one for one in swap_disks(line, swaps, frozenset()).options if one.flag not in ("S", "incoming"))
    return options.join(line.binary, (*kept, *_credentials(record), Option("S")))


def _swap(line: CommandLine, disk: DiskRecord) -> DiskSwap:
    """The nodes of a disk as they were when its QEMU started, and as they have to be now."""
    made, top = stack.stack(disk)
    ours = names.node(disk.suid, "")
    return DiskSwap(
        next(use.node.name for use in line.blocks if use.node and use.node.name.startswith(ours)), made, top
    )


def _credentials(record: GuestRecord) -> Iterator[Option]:
    """The keys of the links that are still read."""
    links = [link.endpoint for disk in record.disks if (link := link_of(disk.chain))]
    for endpoint in dict.fromkeys(endpoint for endpoint in links if isinstance(endpoint, TlsTcp)):
        yield Option("object", json.dumps(nodes.tls_object(endpoint, "client")))
