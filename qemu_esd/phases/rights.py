"""Folders that the QEMU of a domain may use: libvirt runs it as a user of its own, to whom ours are closed."""

from __future__ import annotations

from qemu_esd.errors import EsdError
from qemu_esd.hosts import files
from qemu_esd.hosts.base import Host, shell
from qemu_esd.log import step
from qemu_esd.model.host import HostPaths
from qemu_esd.model.resource import Folder
from qemu_esd.phases.context import Context

# What is above them may be passed and not listed; what of ours is beside them stays closed by itself.
_GIVE = r"""
umask 077
set -e
mkdir -p -- "$3"
chmod 700 -- "$3"
chown -- "$1" "$3"
folder=$3
while folder=$(dirname -- "$folder") && [ "${#folder}" -ge "${#2}" ]; do chmod 711 -- "$folder"; done
"""


@step
async def give_rooms(ctx: Context) -> None:
    """A folder on each host for the sockets that the domain's QEMU makes, or opens. Bare guests need none."""
    plan, domain = ctx.plan, ctx.plan.domain
    if domain is None:
        return
    for site, owner in ((plan.source, domain.owner_here), (plan.target, domain.owner_there)):
        ctx.hold(Folder(site.host, site.paths.guest_run(plan.id)))
        host = await ctx.hosts.get(site.host)
        await files.write(host, _owner_file(site.paths, plan.id), owner.encode())
        await give_again(host, site.paths, plan.id)


async def give_again(host: Host, paths: HostPaths, migration: str) -> None:
    """The same folder, also after a reboot, with which it has gone."""
    owner = await files.read(host, _owner_file(paths, migration))
    if owner is None:
        raise EsdError(f"nobody has written down for whom {paths.guest_run(migration)} is", host=host.name)
    await shell(host, _GIVE, owner.decode(), paths.run, paths.guest_run(migration))


def _owner_file(paths: HostPaths, migration: str) -> str:
    return f"{paths.link_state(migration)}/owner"
