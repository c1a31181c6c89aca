"""Look at both hosts and the guest, side by side, and touch nothing."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass

from qemu_esd.errors import EsdError, QemuGoneError, RefusedError
from qemu_esd.hosts import facts, files
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors import bare, processes, records, versions
from qemu_esd.hypervisors.cmdline.carried import Place
from qemu_esd.hypervisors.cmdline.reader import read
from qemu_esd.journal import registry
from qemu_esd.model.disk import Image
from qemu_esd.model.record import Begun, GuestRecord
from qemu_esd.model.vm import Guest, Kind, QemuProcess
from qemu_esd.phases import meeting, notice
from qemu_esd.phases.context import Monitors
from qemu_esd.qmp import exports, jobs, machine, migrate
from qemu_esd.qmp.session import Session


@dataclass(frozen=True)
class SourceView:
    """The guest on its host: how it runs, what works on it, where its anonymous disks sit, what is missing there."""

    guest: Guest
    record: GuestRecord | None
    facts: facts.HostFacts
    address: str
    run_state: str
    migration: str
    jobs: tuple[str, ...]
    exports: frozenset[str]
    tls: bool
    iothreads: bool
    places: dict[str, Place]
    ports_in_use: frozenset[int]
    missing_images: tuple[str, ...]
    begun: tuple[Begun, ...] = ()


@dataclass(frozen=True)
class TargetView:
    """The host that it is to run on. `qemu` is None where there is none."""

    facts: facts.HostFacts
    address: str
    process: QemuProcess | None
    qemu: versions.Program | None
    ports_in_use: frozenset[int]


async def find_host(hosts: Hosts, vm: str) -> str:
    """The host that `vm` is on: where this controller has seen it last, or where its record there says that it went.

    Raises RefusedError for an unknown guest.
    """
    known = registry.find(vm)
    if known is not None:
        return await _followed(hosts, vm, known.hosts[-1])
    if await processes.find(await hosts.get("local"), vm) is not None:
        return "local"
    raise RefusedError(f"there is no guest {vm}", hint="see: qemu-esd status; name its host with --from HOST")


async def _followed(hosts: Hosts, vm: str, name: str) -> str:
    """Another controller may have moved it on."""
    been = list[str]()
    while name not in been:
        been.append(name)
        host = await hosts.get(name)
        record = await records.guest(host, (await facts.look(host)).paths, vm)
        if record is None or record.moved_to is None:
            return name
        name = record.moved_to
    circle = " -> ".join((*been, name))
    raise RefusedError(f"the records of {vm} point in a circle: {circle}", hint="name its host with --from HOST")


async def source(hosts: Hosts, monitors: Monitors, vm: str, host_name: str, peer: Host) -> SourceView:
    """Everything about the guest on its host. Raises RefusedError, HostError, MonitorBusyError."""
    host = await hosts.get(host_name)
    here, process = await asyncio.gather(facts.look(host), processes.find(host, vm))
    record = await records.guest(host, here.paths, vm)
    if process is None:
        raise _not_running(vm, host_name, record)
    qemu = await _first_word(monitors, host_name, meeting.monitor_of(host_name, process, here.paths), vm)
    # What QEMU answers and what the host answers, side by side.
    guest, address, ports, begun = await asyncio.gather(
        meeting.describe(monitors, process, qemu, record),
        address_towards(host, peer),
        facts.ports_in_use(host),
        notice.read(host, here.paths, vm),
    )
    images = [layer.path for disk in guest.disks for layer in disk.chain if isinstance(layer, Image)]
    present = await files.existing(host, *images)
    return SourceView(
        guest=guest,
        record=record,
        facts=here,
        address=address,
        run_state=await machine.run_state(qemu),
        migration=(await migrate.progress(qemu)).status,
        jobs=tuple(await jobs.running(qemu)),
        exports=await exports.ids(qemu),
        tls=await machine.has_tls_psk(qemu),
        iothreads=await machine.has_iothreads(qemu),
        places=await _places(guest, qemu),
        ports_in_use=ports,
        missing_images=tuple(path for path in images if path not in present),
        begun=begun,
    )


async def _first_word(monitors: Monitors, host: str, monitor: str, vm: str) -> Session:
    try:
        return await monitors.get(host, monitor, vm)
    except QemuGoneError as error:
        what = f"{vm} has ended or moved away just now"
        raise RefusedError(what, host=host, hint=f"qemu-esd status {shlex.quote(vm)}") from error


def _not_running(vm: str, host: str, record: GuestRecord | None) -> EsdError:
    if record is not None and record.moved_to is not None:
        return RefusedError(f"{vm} has moved to {record.moved_to}", host=host, hint=f"add --from {record.moved_to}")
    if record is not None:
        hint = (
            f"a guest that is shut off moves cold: copy its images, then qemu-esd vm run {shlex.quote(vm)} --host ..."
        )
        return RefusedError(f"{vm} is shut off", host=host, hint=hint)
    return RefusedError(f"there is no guest {vm}", host=host, hint="see: qemu-esd vm list --host " + host)


async def _places(guest: Guest, qemu: Session) -> dict[str, Place]:
    """Where disks without a -device of their own sit. libvirt gives each its own."""
    if guest.kind is Kind.DOMAIN:
        return {}
    line = read(guest.process.argv)
    anonymous = [disk for disk in guest.disks if (use := line.find(disk.drive)) and use.device is None]
    return {disk.id: await bare.place(qemu, disk) for disk in anonymous}


async def address_towards(host: Host, peer: Host) -> str:
    """The address of `host` on its way to `peer`: from the routing table, whoever of the two we are."""
    peer_address = await peer.peer_address()
    if peer_address is not None:
        return await facts.address_towards(host, peer_address)
    own = await host.peer_address()
    if own is None:
        raise RefusedError("both ends are this machine", host=host.name, hint="name another host")
    return own


async def target(hosts: Hosts, vm: str, host_name: str, peer: Host) -> TargetView:
    """Everything about the host that the guest is to run on."""
    host = await hosts.get(host_name)
    (here, qemu), process, ports, address = await asyncio.gather(
        _equipment(host), processes.find(host, vm), facts.ports_in_use(host), address_towards(host, peer)
    )
    return TargetView(here, address, process, qemu, ports)


async def _equipment(host: Host) -> tuple[facts.HostFacts, versions.Program | None]:
    here = await facts.look(host)
    return here, await versions.program(host) if versions.BINARY in here.programs else None
