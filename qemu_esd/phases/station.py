"""A guest where it runs now, whatever brought it there: its host, its record, its monitor."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from qemu_esd.errors import RefusedError
from qemu_esd.graph import names
from qemu_esd.hosts import facts
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors import processes, records
from qemu_esd.model.disk import Disk, link_of
from qemu_esd.model.host import GuestSockets, HostPaths, guest_sockets
from qemu_esd.model.record import DiskRecord, GuestRecord
from qemu_esd.model.vm import Guest, Kind, QemuProcess
from qemu_esd.phases import meeting
from qemu_esd.phases.context import Monitors
from qemu_esd.phases.places import windows_of_domain
from qemu_esd.qmp.session import Session


@dataclass(frozen=True)
class Station:
    """A running guest. `qemu` is its control monitor, or the one for observers."""

    hosts: Hosts
    monitors: Monitors
    host: Host
    paths: HostPaths
    record: GuestRecord
    guest: Guest
    qemu: Session

    @property
    def sockets(self) -> GuestSockets:
        return guest_sockets(self.paths, self.record.name)

    def disk(self, record: DiskRecord) -> Disk:
        """The running disk that a record speaks of."""
        return next(disk for disk in self.guest.disks if disk.suid == record.suid)

    def overlay(self, record: DiskRecord) -> str:
        """The node that the guest's writes go to: of our own making, or of libvirt's."""
        return self.disk(record).overlay if self.is_domain else names.overlay(record.suid, record.level)

    def remote(self, record: DiskRecord) -> str:
        """The node below it, by which absent data is read."""
        return self.disk(record).backing if self.is_domain else names.remote(record.suid)

    @property
    def windows(self) -> str:
        """The socket of the NBD server in the guest's QEMU."""
        migration = self.record.migration
        return windows_of_domain(self.paths, migration or "") if self.is_domain else self.sockets.nbd

    @property
    def is_domain(self) -> bool:
        return self.guest.kind is Kind.DOMAIN

    def linked(self) -> tuple[DiskRecord, ...]:
        """The disks whose data is partly elsewhere, so that something may be missing here."""
        return tuple(disk for disk in self.record.disks if link_of(disk.chain))

    async def rewrite(self, record: GuestRecord) -> Station:
        """Write the guest's record anew and look at the guest again."""
        await records.write_guest(self.host, self.paths, record)
        return await open_station(self.hosts, self.monitors, self.host.name, record.name)


async def open_station(hosts: Hosts, monitors: Monitors, host_name: str, vm: str) -> Station:
    """The guest `vm` on that host. Raises RefusedError if it does not run there or is not ours."""
    host = await hosts.get(host_name)
    paths = (await facts.look(host)).paths
    record = await records.guest(host, paths, vm)
    if record is None or record.moved_to is not None:
        raise RefusedError(f"{vm} is not one of our guests there", host=host_name, hint="see: qemu-esd status")
    process = await processes.find(host, vm)
    if process is None:
        raise RefusedError(f"{vm} does not run", host=host_name, hint="see: qemu-esd status")
    monitor = meeting.monitor_of(host_name, process, paths)
    qemu = await monitors.get(host_name, monitor, vm)
    guest = await meeting.describe(monitors, process, qemu, record)
    return Station(hosts, monitors, host, paths, record, guest, qemu)


async def observe_station(hosts: Hosts, monitors: Monitors, host_name: str, vm: str) -> Station:
    """The guest `vm` on that host, seen through the monitor that stays free while somebody changes the guest.

    Only to look: whoever is not the client of `control` changes nothing. A QEMU that we did not start is seen too, with
    an empty record; it may have one monitor only, so MonitorBusyError while somebody else speaks to it.
    """
    host = await hosts.get(host_name)
    paths = (await facts.look(host)).paths
    process, record = await asyncio.gather(processes.find(host, vm), records.guest(host, paths, vm))
    if process is None:
        raise RefusedError(f"{vm} does not run", host=host_name, hint="see: qemu-esd status")
    return await observe(hosts, monitors, host, process, record)


async def observe(
    hosts: Hosts, monitors: Monitors, host: Host, process: QemuProcess, record: GuestRecord | None
) -> Station:
    """The same of a process and a record that are known already."""
    vm, paths = process.name, (await facts.look(host)).paths
    qemu = await monitors.get(host.name, meeting.observer_of(host.name, process, paths), vm)
    guest = await meeting.describe(monitors, process, qemu, record)
    return Station(hosts, monitors, host, paths, record or GuestRecord(vm, guest.uuid, 0, ()), guest, qemu)


def with_disk(record: GuestRecord, changed: DiskRecord) -> GuestRecord:
    """The record with one disk's line replaced."""
    disks = tuple(changed if disk.suid == changed.suid else disk for disk in record.disks)
    return replace(record, disks=disks)
