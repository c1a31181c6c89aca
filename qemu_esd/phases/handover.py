"""Handover: the source QEMU gives its images to the path handler, and exits.

The images are taken between `completed` and `cont` on the target, while the guest is stopped: the path handler's lock
is the fence, and the source cannot run again whatever happens to us. On 10.x it must be so early anyway: an export of
an inactive node answers reads only, and the guest's first partial write would fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from qemu_esd.errors import EsdError, QemuGoneError
from qemu_esd.graph import image_guard, names, nodes, path_handler
from qemu_esd.hosts import files, service
from qemu_esd.hypervisors import records
from qemu_esd.log import logger, step
from qemu_esd.model.plan import DiskPlan
from qemu_esd.model.record import LinkMember
from qemu_esd.model.vm import Kind
from qemu_esd.phases import aside, domain_move, identity, links, places
from qemu_esd.phases.context import Context, together
from qemu_esd.qmp import blockdev, exports, machine
from qemu_esd.qmp.session import Session


@step
async def take_images(ctx: Context) -> None:
    """The path handler opens each image and serves from it; requests in flight are not lost. Taken already is fine.

    Raises if a lock cannot be had: then the source still holds its images, and all can be rolled back.
    A kill in the middle: some devices are served by the source QEMU still, which answers reads until it is ended.
    """
    session, members = await ctx.path_handler(), places.taken_members(ctx.plan)
    present = await blockdev.names(session)
    fresh = [member for member in members if names.image(member.suid) not in present]
    # All disks side by side, because the guest stands still; and none is served from its image before all are had.
    await together(*(blockdev.add_all(session, path_handler.taken(member)) for member in fresh))
    await together(
        *(blockdev.reopen(session, path_handler.served(member, names.image(member.suid))) for member in members)
    )
    for disk, member in zip(ctx.plan.disks, members, strict=True):
        if member.writable:
            await _open_for_writes(ctx, session, disk, member)


async def _open_for_writes(ctx: Context, handler: Session, disk: DiskPlan, member: LinkMember) -> None:
    """A disk without local space: its export becomes writable, and the waiting target gets a link that writes."""
    suid, target = member.suid, await ctx.target_qemu()
    present = await blockdev.names(target)
    if names.remote(suid) not in present:
        return
    if names.served(suid) in await exports.ids(handler):
        await exports.delete(handler, names.served(suid))
    await exports.add_writable(handler, names.served(suid), names.served(suid), member.export)
    if names.remote_writable(suid) not in present:
        await blockdev.add(target, nodes.link(names.remote_writable(suid), disk.link, writable=True))
    await blockdev.reopen(target, nodes.face(suid, names.remote_writable(suid)))
    # The last step of it: as long as the link that reads is there, all of it is done again.
    await blockdev.delete(target, names.remote(suid))


@step
async def end_source(ctx: Context) -> None:
    """The source QEMU ends and its RAM is free; a path handler that is restarted finds the images by itself.

    A kill between two steps: a path handler that has to restart then may miss an image until `resume` has been here.
    """
    members = await _stamped(ctx)
    await _make_permanent(ctx, members)
    # A path handler that was restarted meanwhile asks the source QEMU again, as it was told when it began.
    await take_images(ctx)
    await _drop_proxies(ctx)
    await end_qemu(ctx)
    await _put_images_aside(ctx, members)
    await _clear_source(ctx)
    await links.after_switchover(ctx)


async def _stamped(ctx: Context) -> tuple[LinkMember, ...]:
    """The members with what their images are. Looked at once: what has changed since must not count as what was left.

    A kill before it is written: `resume` looks, and the lock has kept writers out until then.
    """
    host, paths = await ctx.source(), ctx.plan.source.paths
    record = await records.link(host, paths, ctx.plan.id)
    assert record is not None
    if not any(member.stamps for member in record.members):
        record = replace(record, members=await identity.stamped(host, record.members))
        await records.write_link(host, paths, record)
    return record.members


async def end_qemu(ctx: Context) -> None:
    """Gone already is fine. One that has a guest is not the one that gave its guest away."""
    await _END[ctx.plan.guest.kind](ctx)


async def _quit(ctx: Context) -> None:
    try:
        source = await ctx.source_qemu()
        if (state := await machine.run_state(source)) != "postmigrate":
            what = f"the QEMU of {ctx.plan.vm} is {state}, although its guest has moved to {ctx.plan.target.host}"
            raise EsdError(what, host=source.host, hint=f"qemu-esd status {ctx.plan.vm}")
        await source.quit()
        await source.closed()
    except QemuGoneError:
        logger.info("the source QEMU is gone already", host=ctx.plan.source.host)


_END = {Kind.BARE: _quit, Kind.DOMAIN: domain_move.end_source}


async def _clear_source(ctx: Context) -> None:
    """The former QEMU's unit and sockets; its console log stays with its record."""
    paths, host = ctx.plan.source.paths, await ctx.source()
    unit = places.guest_unit_name(ctx.plan.vm)
    await service.stop(host, paths.unit(unit), unit)
    await files.remove_tree(host, paths.vm_run(ctx.plan.vm))


async def _put_images_aside(ctx: Context, members: Sequence[LinkMember]) -> None:
    """The path handler has them open. By their old names nothing finds them any more, now or after a reboot.

    From here on it serves them only as long as they are what they were.
    """
    source, plan = await ctx.source(), ctx.plan
    record = await records.link(source, plan.source.paths, plan.id)
    assert record is not None
    await aside.mark(source, record, datetime.now(UTC).isoformat(timespec="seconds"))
    moved = tuple(aside.moved(member, plan.id) for member in members)
    await _make_permanent(ctx, moved)
    unit = plan.source.paths.unit(places.path_handler_name(plan.id))
    await files.write(source, f"{unit}/{image_guard.STAMPS}", image_guard.stamps(moved))


async def _make_permanent(ctx: Context, members: Sequence[LinkMember]) -> None:
    """A kill before this line: a restarted path handler asks the source QEMU, which is still there."""
    plan, unit = ctx.plan, places.path_handler(ctx.plan)
    argv = path_handler.image_argv(members, places.handler_listen(plan), places.handler_monitor(plan))
    await service.rewrite(await ctx.source(), plan.source.paths.unit(unit.name), argv)


async def _drop_proxies(ctx: Context) -> None:
    session = await ctx.path_handler()
    present = await blockdev.names(session)
    for member in places.members(ctx.plan):
        if names.proxy(member.suid) in present:
            await blockdev.delete(session, names.proxy(member.suid))
