"""The relay on the target of a domain: started before it comes, told to answer with zeroes at the end, ended."""

from __future__ import annotations

from qemu_esd.errors import EsdError
from qemu_esd.graph import names, relay
from qemu_esd.hosts import facts, service
from qemu_esd.hosts.connect import Hosts
from qemu_esd.log import step
from qemu_esd.model.record import DiskRecord
from qemu_esd.phases import places
from qemu_esd.phases.context import Context, Monitors
from qemu_esd.qmp import blockdev


@step
async def start(ctx: Context) -> None:
    """A unit, started again when it ends: then the domain's QEMU, whose next read fails, is paused until it is told."""
    plan, unit = ctx.plan, places.relay(ctx.plan)
    ctx.hold(unit)
    links = [(disk.disk.suid, disk.link) for disk in plan.disks]
    socket = places.relay_socket(plan.target.paths, plan.id)
    argv = relay.argv(links, places.relay_monitor(plan.target.paths, plan.id), socket)
    made = service.Service(unit.name, plan.target.paths.unit(unit.name), argv, restart=True)
    await service.start_ready(await ctx.target(), made, socket)
    await _check_sizes(ctx)


async def _check_sizes(ctx: Context) -> None:
    """libvirt does not compare them, nor does QEMU."""
    monitor = places.relay_monitor(ctx.plan.target.paths, ctx.plan.id)
    nodes = await blockdev.named(await ctx.monitors.get(ctx.plan.target.host, monitor, "the relay"))
    for disk in ctx.plan.disks:
        size = nodes[names.remote(disk.disk.suid)]["image"]["virtual-size"]
        if size != disk.disk.size:
            raise EsdError(
                f"the relay's {disk.disk.id} has {size} bytes, the disk {disk.disk.size}", host=ctx.plan.target.host
            )


async def answer_with_zeroes(
    hosts: Hosts, monitors: Monitors, host_name: str, migration: str, disk: DiskRecord
) -> None:
    """Only when all that is not zero is in the overlay. Done already is fine.

    A kill after it changes nothing: a relay that is started again asks the source, which has zeroes there too.
    """
    paths = (await facts.look(await hosts.get(host_name))).paths
    session = await monitors.get(host_name, places.relay_monitor(paths, migration), "the relay")
    if names.zeroes(disk.suid) not in await blockdev.names(session):
        await blockdev.add(session, relay.zeroes(disk.suid, disk.size))
    await blockdev.reopen(session, relay.served(disk.suid, names.zeroes(disk.suid)))
