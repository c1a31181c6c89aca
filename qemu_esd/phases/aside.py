"""What a former source does with its member once nobody needs it: put aside under a name that says what it is."""

from __future__ import annotations

from dataclasses import replace

from qemu_esd.graph import tls
from qemu_esd.hosts import facts, files, service, ssh_keys
from qemu_esd.hosts.base import Host
from qemu_esd.hypervisors import records
from qemu_esd.model.disk import top_image
from qemu_esd.model.host import HostPaths
from qemu_esd.model.record import LinkRecord
from qemu_esd.phases import linkends, places


def name_aside(path: str, migration: str) -> str:
    """The image's name after its guest has left: it does not start a guest by accident."""
    return f"{path}.moved-{migration}"


async def put_aside(host: Host, migration: str) -> None:
    """End the path handler, drop the keys, rename the images. Done already, wholly or in part, is fine."""
    paths = (await facts.look(host)).paths
    record = await records.link(host, paths, migration)
    await _stop(host, paths, migration)
    if record is None:
        return
    if record.upstream is not None:
        await linkends.drop(host, paths, record.upstream)
    images = [image.path for member in record.members if (image := top_image(member.chain))]
    record = replace(record, put_aside=tuple(name_aside(path, migration) for path in images))
    await records.write_link(host, paths, record)
    for path in images:
        await files.rename(host, path, name_aside(path, migration))


async def _stop(host: Host, paths: HostPaths, migration: str) -> None:
    name = places.path_handler_name(migration)
    await service.stop(host, paths.unit(name), name)
    for name in (tls.KEY_FILE, tls.GROUP_FILE):
        await files.remove(host, f"{paths.link_state(migration)}/{name}")
    await files.remove_tree(host, paths.link_run(migration))
    await ssh_keys.withdraw(host, ssh_keys.comment_of(migration))


async def forget(host: Host, migration: str) -> LinkRecord | None:
    """Delete what was put aside, and the record of it. Returns the record, None if nothing was left."""
    paths = (await facts.look(host)).paths
    record = await records.link(host, paths, migration)
    if record is not None:
        for path in record.put_aside:
            await files.remove(host, path)
    await files.remove_tree(host, paths.link_state(migration))
    return record
