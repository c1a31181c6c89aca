"""What the images of a path handler are, looked at when they are left, and compared before they are served again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qemu_esd.errors import RefusedError
from qemu_esd.graph import image_guard
from qemu_esd.hosts.base import Host, shell
from qemu_esd.model.disk import images
from qemu_esd.model.record import GuestRecord, LinkMember, LinkRecord

_STAMPS = 'set -e; while [ $# -gt 0 ]; do stat -L -c "$2" -- "$1"; shift 2; done'


async def stamped(host: Host, members: Sequence[LinkMember]) -> tuple[LinkMember, ...]:
    """The members with what their images are now."""
    asked = [word for question in image_guard.questions(members) for word in question]
    lines = iter((await shell(host, _STAMPS, *asked)).text.splitlines())
    return tuple(replace(member, stamps=tuple(next(lines) for _ in images(member.chain))) for member in members)


async def check(host: Host, folder: str) -> None:
    """Raises RefusedError if an image is not what the path handler's unit, in `folder`, was told that it is."""
    done = await host.attempt(("sh", "-c", f'{image_guard.SAME} cd -- "$1" && same', "sh", folder))
    if done.status != 0:
        hint = "put it back as it was; until then nobody reads from it"
        raise RefusedError(done.text.strip() or done.stderr.strip(), host=host.name, hint=hint)


def check_generation(host: str, link: LinkRecord, guest: GuestRecord | None) -> None:
    """Raises RefusedError for a link that nobody reads by any more: what it would serve is older than the guest's data.

    `guest` is what the host knows of it: the generation that was here last, and the links that it reads by.
    """
    if link.put_aside:
        what = f"{link.vm} needs nothing of it since it is settled"
        raise RefusedError(what, host=host, hint=f"qemu-esd release {link.vm}")
    if guest is None or link.generation > guest.generation:
        return
    if link.migration not in {one.migration for one in guest.upstream}:
        what = f"it is of generation {link.generation} of {link.vm}, and generation {guest.generation} was here since"
        raise RefusedError(what, host=host, hint="nobody reads from it: remove its folders in unit/ and link/")
