"""The notice on both hosts of a migration that has not come to its end: for a controller that has no journal of it.

It lies in the link's folder, so what undoes a migration removes it. It says where the journal is, and has the plan, by
which all that was made can be found.
"""

from __future__ import annotations

import getpass
import socket

from qemu_esd.hosts import files
from qemu_esd.hosts.base import Host
from qemu_esd.journal import codec, store
from qemu_esd.log import step
from qemu_esd.model.host import HostPaths
from qemu_esd.model.plan import Plan, Site
from qemu_esd.model.record import Begun
from qemu_esd.phases.context import Context

_NAME = "begun.json"


def _path(site: Site, migration: str) -> str:
    return f"{site.paths.link_state(migration)}/{_NAME}"


async def put_up(host: Host, site: Site, plan: Plan) -> None:
    """Before anything else is made there."""
    begun = Begun(f"{getpass.getuser()}@{socket.gethostname()}:{store.home()}", plan)
    await files.write(host, _path(site, plan.id), codec.dump(begun).encode())


@step
async def take_down(ctx: Context) -> None:
    """The migration has come to its end. A kill in between: `resume` takes down the other one."""
    for site in (ctx.plan.source, ctx.plan.target):
        await files.remove(await ctx.hosts.get(site.host), _path(site, ctx.plan.id))


async def read(host: Host, paths: HostPaths, word: str) -> tuple[Begun, ...]:
    """The migrations of the guest `word`, or the one of that id, that this host knows not to have come to their end."""
    return tuple(begun for begun in await read_all(host, paths) if word in (begun.plan.vm, begun.plan.id))


async def read_all(host: Host, paths: HostPaths) -> tuple[Begun, ...]:
    """Those of all guests."""
    found = await files.read_each(host, f"{paths.state}/link", _NAME)
    return tuple(codec.load(text, Begun) for text in found.values())
