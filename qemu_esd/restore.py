"""After a reboot of a host: what it served, and by what it read, runs again.

Path handlers, watches and tunnels are units whose folders are on the host's disk; what was in /run is gone. Guests that
ran there have ended with it, and are started by `vm start`.
"""

from __future__ import annotations

from dataclasses import dataclass

from qemu_esd.errors import EsdError, RefusedError
from qemu_esd.hosts import facts, files, service
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors import records
from qemu_esd.model.host import HostPaths
from qemu_esd.phases import identity, places, rights

# Those that have a monitor, by which it is seen that they are ready.
MONITORS = {"path": places.handler_socket, "relay": places.relay_monitor}


@dataclass(frozen=True)
class Restored:
    """A unit of a host: its name, and what became of it ("ran already", "started", or why not)."""

    unit: str
    outcome: str
    failed: bool = False


async def restore(hosts: Hosts, host_name: str) -> tuple[Restored, ...]:
    """Start every unit of a link that does not run. Running ones are left alone; one that fails stops no other."""
    host = await hosts.get(host_name)
    paths = (await facts.look(host)).paths
    units = await files.listing(host, f"{paths.state}/unit")
    in_order = [name for kind in places.LINK_UNITS for name in units if name.partition("-")[0] == kind]
    return tuple([await _restore(host, paths, name) for name in in_order])


async def _restore(host: Host, paths: HostPaths, name: str) -> Restored:
    kind, _, migration = name.partition("-")
    folder = paths.unit(name)
    try:
        argv = await service.argv_of(host, folder)
        if kind == "path":
            await _check(host, paths, migration)
        if await service.state(host, folder, name) == "running":
            return Restored(name, "ran already")
        unit = service.Service(name, folder, argv, restart=True)
        await files.make_folders(host, paths.link_run(migration))
        if kind == "relay":
            await rights.give_again(host, paths, migration)
        if kind in MONITORS:
            await service.start_ready(host, unit, MONITORS[kind](paths, migration))
        else:
            await service.start(host, unit)
    except EsdError as error:
        return Restored(name, f"{error}; try: {error.hint}" if error.hint else str(error), failed=True)
    return Restored(name, "started")


async def _check(host: Host, paths: HostPaths, migration: str) -> None:
    """Raises RefusedError if that path handler must not serve: nobody needs it, or what it has is something else."""
    link = await records.link(host, paths, migration)
    if link is None:
        hint = f"nobody reads from it: rm -r {paths.unit(places.path_handler_name(migration))}"
        raise RefusedError("there is no record of what it served", host=host.name, hint=hint)
    identity.check_generation(host.name, link, await records.guest(host, paths, link.vm))
    await identity.check(host, paths.unit(places.path_handler_name(migration)))
