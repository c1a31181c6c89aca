"""The reading end of a link on a host: watch, tunnel, keys, sockets."""

from __future__ import annotations

from qemu_esd.hosts import files, service
from qemu_esd.hosts.base import Host
from qemu_esd.model.host import HostPaths
from qemu_esd.phases import places


async def drop(host: Host, paths: HostPaths, migration: str) -> None:
    """Remove everything by which this host reads from the source of `migration`. Gone already is fine."""
    for name in (places.watch_name(migration), places.relay_name(migration), places.tunnel_name(migration)):
        await service.stop(host, paths.unit(name), name)
    for folder in (paths.link_state(migration), paths.link_run(migration), paths.guest_run(migration)):
        await files.remove_tree(host, folder)
