"""What a former source does with its member: put aside under a name that says what it is, kept until nobody needs it.

Put aside at the handover, when its QEMU has ended: the path handler goes on serving the open file. From then on nothing
starts a guest from it by its path, also after a reboot, when no path handler holds its lock. A tombstone beside it says
why; `release` removes both.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

from qemu_esd.graph import tls
from qemu_esd.hosts import facts, files, service, ssh_keys
from qemu_esd.hosts.base import Host
from qemu_esd.hypervisors import records
from qemu_esd.model.disk import Image, images, top_image
from qemu_esd.model.host import HostPaths
from qemu_esd.model.record import LinkMember, LinkRecord
from qemu_esd.phases import linkends, places

_ASIDE = re.compile(r"\.moved-[0-9a-f]{8}$")
_BASE = re.compile(r"\.base-[0-9a-f]{8}$")


def name_aside(path: str, migration: str) -> str:
    """The image's name after its guest has left: it does not start a guest by accident."""
    return f"{path}.moved-{migration}"


def name_base(path: str, migration: str) -> str:
    """The name by which an image that was put aside stays, below the overlay of the migration that came home."""
    return f"{_ASIDE.sub('', path)}.base-{migration}"


def moved(member: LinkMember, migration: str) -> LinkMember:
    """The member as it is found after it was put aside."""
    top = top_image(member.chain)
    if top is None:
        return member
    return replace(member, chain=(replace(top, path=name_aside(top.path, migration)), *member.chain[1:]))


async def mark(host: Host, record: LinkRecord, time: str) -> None:
    """Rename the images that have moved, each with its tombstone. Done already, wholly or in part, is fine."""
    for member in record.members:
        if top := top_image(member.chain):
            aside = name_aside(top.path, record.migration)
            await files.write(host, tombstone(aside), _epitaph(record, member, top, time))
            await files.rename(host, top.path, aside)


async def unmark(host: Host, record: LinkRecord) -> None:
    """The images get their names back, the newest copy of them being here. Done already, wholly or in part, is fine."""
    for member in record.members:
        if top := top_image(member.chain):
            aside = name_aside(top.path, record.migration)
            await files.rename(host, aside, top.path)
            await files.remove(host, tombstone(aside))


async def time_of(host: Host, aside: str) -> str | None:
    """When the image was put aside, by the note beside it; None where there is none yet."""
    note = await files.read(host, tombstone(aside))
    return None if note is None else str(json.loads(note)["time"])


def tombstone(aside: str) -> str:
    """The note beside an image that was put aside."""
    return f"{aside}.json"


def _epitaph(record: LinkRecord, member: LinkMember, top: Image, time: str) -> bytes:
    facts = {
        "what": f"a disk of the guest {record.vm}, which has moved to {record.target}; do not start a guest from it",
        "vm": record.vm,
        "suid": member.suid,
        "generation": record.generation,
        "migration": record.migration,
        "target": record.target,
        "was": top.path,
        "time": time,
    }
    return (json.dumps(facts, indent=2) + "\n").encode()


async def put_aside(host: Host, migration: str) -> None:
    """Nobody reads from here any more: end the path handler, drop the keys. Done already, or in part, is fine."""
    paths = (await facts.look(host)).paths
    record = await records.link(host, paths, migration)
    await stop_serving(host, paths, migration)
    if record is None:
        return
    if record.upstream is not None:
        await linkends.drop(host, paths, record.upstream)
    tops = [image.path for member in record.members if (image := top_image(member.chain))]
    bases = await _bases(host, record)
    record = replace(record, put_aside=(*(name_aside(path, migration) for path in tops), *bases))
    await records.write_link(host, paths, record)
    for path in tops:
        await files.rename(host, path, name_aside(path, migration))


async def _bases(host: Host, record: LinkRecord) -> list[str]:
    """What lies below since a way home: ours, as the note beside it says, and nobody's when the image above it goes."""
    below = [image.path for member in record.members for image in images(member.chain)[1:] if _BASE.search(image.path)]
    noted = await files.existing(host, *map(tombstone, below)) if below else frozenset()
    return [path for path in below if tombstone(path) in noted]


async def stop_serving(host: Host, paths: HostPaths, migration: str) -> None:
    """End the path handler, and drop keys and sockets. Done already is fine."""
    name = places.path_handler_name(migration)
    await service.stop(host, paths.unit(name), name)
    for name in (tls.KEY_FILE, tls.GROUP_FILE):
        await files.remove(host, f"{paths.link_state(migration)}/{name}")
    for folder in (paths.link_run(migration), paths.guest_run(migration)):
        await files.remove_tree(host, folder)
    await ssh_keys.withdraw(host, ssh_keys.comment_of(migration))


async def forget(host: Host, migration: str) -> LinkRecord | None:
    """Delete what was put aside, and the record of it. Returns the record, None if nothing was left."""
    paths = (await facts.look(host)).paths
    record = await records.link(host, paths, migration)
    if record is not None:
        for path in record.put_aside:
            await files.remove(host, tombstone(path))
            await files.remove(host, path)
    await files.remove_tree(host, paths.link_state(migration))
    return record
