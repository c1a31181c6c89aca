"""A running guest met on its host: which monitor speaks for it, and what it is. A domain's is its libvirt."""

from __future__ import annotations

from dataclasses import replace

from qemu_esd.errors import QemuGoneError
from qemu_esd.hypervisors import bare
from qemu_esd.hypervisors.cmdline.monitors import is_libvirts
from qemu_esd.hypervisors.cmdline.reader import read
from qemu_esd.hypervisors.libvirt import monitor
from qemu_esd.model.host import HostPaths
from qemu_esd.model.record import GuestRecord
from qemu_esd.model.vm import Guest, Kind, QemuProcess
from qemu_esd.phases.context import Monitors
from qemu_esd.qmp.session import Session


def kind_of(process: QemuProcess) -> Kind:
    """By what its command line calls the way to its monitor."""
    return Kind.DOMAIN if is_libvirts(read(process.argv).options) else Kind.BARE


def monitor_of(host: str, process: QemuProcess, paths: HostPaths) -> str:
    """The monitor for whoever changes the guest."""
    return monitor.address(process.name) if kind_of(process) is Kind.DOMAIN else bare.monitor_of(host, process, paths)


def observer_of(host: str, process: QemuProcess, paths: HostPaths) -> str:
    """The monitor for whoever only looks."""
    return monitor.address(process.name) if kind_of(process) is Kind.DOMAIN else bare.observer_of(host, process, paths)


def user_of(host: str, process: QemuProcess, paths: HostPaths) -> str:
    """The monitor for ad hoc commands."""
    return monitor.address(process.name) if kind_of(process) is Kind.DOMAIN else bare.user_of(host, process, paths)


async def describe(monitors: Monitors, process: QemuProcess, qemu: Session, record: GuestRecord | None) -> Guest:
    """The guest behind an open monitor. Raises RefusedError for a disk that cannot be understood."""
    if kind_of(process) is Kind.DOMAIN:
        return await _domain(monitors, process, qemu, record)
    return await bare.describe(process, qemu, record)


async def _domain(monitors: Monitors, process: QemuProcess, qemu: Session, record: GuestRecord | None) -> Guest:
    # Its parser of XML is loaded only where there are domains.
    from qemu_esd.hypervisors.libvirt.describe import describe

    domain = await (await monitors.libvirt(qemu.host)).domain(process.name)
    if domain is None:
        raise QemuGoneError(f"libvirt does not know {process.name} any more", host=qemu.host)
    return await describe(process, qemu, _current(record, domain.configuration.uuid), domain)


def _current(record: GuestRecord | None, uuid: str) -> GuestRecord | None:
    """Our record, if it is of this domain. One that says that it has left is old: libvirt has brought it back."""
    if record is None or record.uuid != uuid:
        return None
    if record.moved_to is None:
        return record
    return replace(record, disks=(), migration=None, upstream=(), left_behind=(), moved_to=None)
