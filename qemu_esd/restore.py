"""After a reboot of a host: what it served, and by what it read, runs again; devices that look shared too.

Path handlers, watches and tunnels are units whose folders are on the host's disk; what was in /run is gone. Guests that
ran there have ended with it, and are started by `vm start`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from qemu_esd.errors import EsdError, RefusedError
from qemu_esd.hosts import facts, files, service
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors import records
from qemu_esd.model import device
from qemu_esd.model.host import HostPaths
from qemu_esd.phases import device_records, device_units, identity, places, rights

# Those that have a socket by which it is seen that they are ready. A relay makes its monitor first, and what a domain
# reads by when it has reached the source.
SOCKETS: dict[str, Callable[[HostPaths, str], str]] = {
    "path": places.handler_socket,
    "relay": places.relay_socket,
    device.FACE: partial(device.monitor, part=device.FACE),
    device.GATE: partial(device.monitor, part=device.GATE),
}


@dataclass(frozen=True)
class Restored:
    """A unit of a host: its name, and what became of it ("ran already", "started", or why not)."""

    unit: str
    outcome: str
    failed: bool = False


async def restore(hosts: Hosts, host_name: str) -> tuple[Restored, ...]:
    """Start every unit of a link or a device that does not run. Running ones are left alone; one that fails stops no
    other. A gate comes after its face, of which it is a client."""
    host = await hosts.get(host_name)
    paths = (await facts.look(host)).paths
    units = await files.listing(host, f"{paths.state}/unit")
    kinds = (*places.LINK_UNITS, *device.UNITS)
    in_order = [name for kind in kinds for name in units if name.partition("-")[0] == kind]
    return tuple([await _restore(hosts, host, paths, name) for name in in_order])


async def _restore(hosts: Hosts, host: Host, paths: HostPaths, name: str) -> Restored:
    kind, _, of = name.partition("-")
    folder = paths.unit(name)
    try:
        argv = await service.argv_of(host, folder)
        if kind == "path":
            await _check(host, paths, of)
        if await service.state(host, folder, name) == "running":
            return Restored(name, "ran already")
        if kind in device.UNITS:
            await _check_device(hosts, host, paths, of)
            await device_units.make_run_folders(host, paths, of)
        else:
            await files.make_folders(host, paths.link_run(of))
        if kind == "relay":
            await rights.give_again(host, paths, of)
        unit = service.Service(name, folder, argv, restart=True)
        if kind in SOCKETS:
            await service.start_ready(host, unit, SOCKETS[kind](paths, of))
        else:
            await service.start(host, unit)
    except EsdError as error:
        return Restored(name, f"{error}; try: {error.hint}" if error.hint else str(error), failed=True)
    return Restored(name, "started")


async def _check_device(hosts: Hosts, host: Host, paths: HostPaths, suid: str) -> None:
    """Raises RefusedError where another host knows better: this one was put back to an old state, or a command was
    broken off.

    Who does not answer is not waited for: no host takes the authority before this one has that in writing.
    """
    known = await device_records.on(host, paths, suid)
    if known is None:
        hint = f"it was being deleted: rm -r {paths.state}/unit/*-{suid}"
        raise RefusedError(f"there is no record of the device {suid}", host=host.name, hint=hint)
    newest, _ = await device_records.newest(hosts, known.hosts, suid)
    if newest is not None and newest.generation > known.generation:
        hint = f"qemu-esd device restore {suid}"
        raise RefusedError(f"other hosts know better of the device {suid}", host=host.name, hint=hint)


async def _check(host: Host, paths: HostPaths, migration: str) -> None:
    """Raises RefusedError if that path handler must not serve: nobody needs it, or what it has is something else."""
    link = await records.link(host, paths, migration)
    if link is None:
        hint = f"nobody reads from it: rm -r {paths.unit(places.path_handler_name(migration))}"
        raise RefusedError("there is no record of what it served", host=host.name, hint=hint)
    identity.check_generation(host.name, link, await records.guest(host, paths, link.vm))
    await identity.check(host, paths.unit(places.path_handler_name(migration)))
