"""The units of a device on a host: its path handler, its gate, and what watches over its way to another host."""

from __future__ import annotations

from itertools import pairwise

from qemu_esd.graph import device as graphs
from qemu_esd.graph import device_argv, device_guests, tls
from qemu_esd.hosts import files, service
from qemu_esd.hosts.base import Host
from qemu_esd.log import step
from qemu_esd.model import device
from qemu_esd.model.device import FACE, GATE, REAR, WATCH, DeviceRecord, Seat
from qemu_esd.model.disk import Link, link_of
from qemu_esd.model.host import HostPaths
from qemu_esd.phases import device_records, links

# Those that have a monitor, by which it is seen that they are ready.
DAEMONS = (FACE, GATE)


def wanted(record: DeviceRecord, seat: Seat) -> dict[str, tuple[str, ...]]:
    """What runs on a host of a device, by its part, in the order in which it starts: a gate is a client of its face."""
    parts = {FACE: device_argv.face_argv(record, seat)}
    if (graph := graphs.gate(record, seat)) is not None:
        parts[GATE] = device_argv.gate_argv(record, seat, graph)
    go_on = links.GoOn(device_guests.GO_ON, device.socket(seat.paths, record.suid), always=not _sees_all(record, seat))
    for part, link in ((WATCH, _link(record, seat)), (REAR, _rear_link(record, seat))):
        if link is not None:
            parts[part] = links.watch_argv(link, go_on)
    return parts


def _sees_all(record: DeviceRecord, seat: Seat) -> bool:
    """Whether no way between two other hosts is needed here. One that is can be dead, and be there again, without a
    word about it here: then guests are looked at all the time."""
    return all(seat.host in ends for ends in pairwise(record.holders))


def _link(record: DeviceRecord, seat: Seat) -> Link | None:
    """The way to the other host by which this one reads or writes."""
    if seat.host == record.authority:
        return link_of(record.chain)
    there = record.seat(record.authority)
    return Link(graphs.gate_of(there, seat, record.suid), seat.export)


def _rear_link(record: DeviceRecord, seat: Seat) -> Link | None:
    """The way to the host behind one that is itself behind."""
    kept = record.kept_on(seat.host)
    return link_of(kept.chain) if kept else None


async def state(host: Host, seat: Seat, suid: str, part: str) -> str:
    """ "running", "ended" or "gone"."""
    name = device.unit(part, suid)
    return await service.state(host, seat.paths.unit(name), name)


async def runs(host: Host, seat: Seat, suid: str, part: str) -> bool:
    return await state(host, seat, suid, part) == "running"


async def start_missing(host: Host, record: DeviceRecord, seat: Seat) -> None:
    """What does not run on a host starts as the record says; what runs is left alone.

    As right as a daemon that was killed: none of what another host does since depends on this one being down.
    """
    missing = [part for part in wanted(record, seat) if not await runs(host, seat, record.suid, part)]
    if missing:
        await device_records.write(host, seat.paths, record)
    for part in missing:
        await start(host, record, seat, part)


async def start(host: Host, record: DeviceRecord, seat: Seat, part: str) -> None:
    """Returns when a daemon answers on its monitor. What was left of an earlier one is removed."""
    name = device.unit(part, record.suid)
    folder = seat.paths.unit(name)
    await service.stop(host, folder, name)
    unit = service.Service(name, folder, wanted(record, seat)[part], restart=True)
    if part in DAEMONS:
        await make_run_folders(host, seat.paths, record.suid)
        await service.start_ready(host, unit, device.monitor(seat.paths, record.suid, part))
    else:
        await service.start(host, unit)


async def stop(host: Host, seat: Seat, suid: str, part: str) -> None:
    """Gone already is fine."""
    name = device.unit(part, suid)
    await service.stop(host, seat.paths.unit(name), name)


async def make_run_folders(host: Host, paths: HostPaths, suid: str) -> None:
    """Gone with each reboot. Others may pass to the socket, and see nothing."""
    await files.make_folders(host, device.run_folder(paths, suid))
    await files.open_to_pass(host, paths.run, f"{paths.run}/device")


async def make_folders(host: Host, seat: Seat, suid: str, key: str) -> None:
    """Where a device lives on a host, with its key."""
    state = device.state_folder(seat.paths, suid)
    await files.make_folders(host, state, f"{seat.paths.state}/disks")
    await files.write(host, f"{state}/{tls.KEY_FILE}", tls.key_line(key))
    await files.write(host, f"{state}/{tls.GROUP_FILE}", tls.FFDHE2048)


@step
async def end_on(host: Host, seat: Seat, suid: str) -> None:
    """Nothing of a device runs on a host any more. Gone already is fine."""
    for part in (REAR, WATCH, GATE, FACE):
        await stop(host, seat, suid, part)
    await files.remove(host, device.socket(seat.paths, suid))
    await files.remove_tree(host, device.run_folder(seat.paths, suid))
