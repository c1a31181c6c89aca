"""Prepare: the source serves its disks, the target has overlays and a QEMU that waits. The guest notices nothing.

A kill anywhere in here: the guest runs on the source, and everything made is in the journal.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from qemu_esd.errors import EsdError, QemuError, QemuGoneError, RefusedError
from qemu_esd.graph import names, path_handler, tls
from qemu_esd.graph.handlers import HANDLERS
from qemu_esd.hosts import files, qemu_img, service
from qemu_esd.journal import codec
from qemu_esd.log import step
from qemu_esd.model.disk import top_image
from qemu_esd.model.host import HostPaths
from qemu_esd.model.plan import DiskPlan, Site, Transport
from qemu_esd.model.record import LinkRecord
from qemu_esd.model.resource import Export, File, Folder, NbdServer, Room
from qemu_esd.model.vm import Kind
from qemu_esd.phases import aside, changes, links, mover, notice, places, relay, rights, windows
from qemu_esd.phases.context import Context, together
from qemu_esd.qmp import blockdev, exports
from qemu_esd.qmp.session import Session


@step
async def prepare(ctx: Context) -> None:
    """Make both ends ready. Raises what failed; the caller rolls back."""
    key = secrets.token_hex(32)
    await together(_make_folders(ctx, ctx.plan.source, key), _make_folders(ctx, ctx.plan.target, key))
    await rights.give_rooms(ctx)
    await together(_prepare_source(ctx), _make_members(ctx))
    await links.connect(ctx)
    await together(links.watch(ctx), _try_fence(ctx), _WAIT[ctx.plan.guest.kind](ctx))


@step
async def _make_folders(ctx: Context, site: Site, key: str) -> None:
    """The link's folders on one host, with the key that both ends of this migration share."""
    state, run = site.paths.link_state(ctx.plan.id), site.paths.link_run(ctx.plan.id)
    ctx.hold(Folder(site.host, state), Folder(site.host, run))
    host = await ctx.hosts.get(site.host)
    # First of all, so that nothing is ever there of which it does not tell.
    await notice.put_up(host, site, ctx.plan)
    work = [files.make_folders(host, state, run)]
    if ctx.plan.transport is Transport.TLS:
        work.append(files.write(host, f"{state}/{tls.KEY_FILE}", tls.key_line(key)))
        work.append(files.write(host, f"{state}/{tls.GROUP_FILE}", tls.FFDHE2048))
    await together(*work)


@step
async def _prepare_source(ctx: Context) -> None:
    session = await ctx.source_qemu()
    # A job that writes while images are given up aborts QEMU; a move that was under way goes on at the next host.
    for disk in ctx.plan.disks:
        await mover.end_mirror(session, disk.disk.suid)
    await changes.keep_room(session, await ctx.source(), [disk.disk for disk in ctx.plan.disks])
    await _export_disks(ctx, session)
    await _start_path_handler(ctx)


async def _export_disks(ctx: Context, session: Session) -> None:
    """Read-only exports of the nodes that hold data: read-only ones do not stand in the way of the switchover."""
    plan = ctx.plan
    await _serve(ctx, session)
    for disk in plan.disks:
        id = names.export_id(disk.disk.suid, "src")
        ctx.hold(Export(plan.source.host, plan.guest.monitor, id))
        await exports.add(session, id, disk.disk.overlay, disk.disk.suid)


async def _serve(ctx: Context, session: Session) -> None:
    """The NBD server of the source QEMU. A guest that reads from elsewhere has one of ours already."""
    plan = ctx.plan
    if plan.guest.upstream:
        await windows.serve(session, places.source_socket(plan))
        return
    server = NbdServer(plan.source.host, plan.guest.monitor)
    ctx.hold(server)
    try:
        await exports.serve_unix(session, places.source_socket(plan))
    except QemuError as error:
        # Somebody else's server: it must not be stopped when we roll back.
        ctx.disown(server)
        raise RefusedError(
            f"the NBD server of {plan.vm} is in use ({error.reason})",
            host=plan.source.host,
            hint="end what uses it (nbd-server-stop), then migrate again",
        ) from error


async def _start_path_handler(ctx: Context) -> None:
    plan, unit = ctx.plan, places.path_handler(ctx.plan)
    members = [(member, aside.moved(member, plan.id).chain) for member in places.members(plan)]
    argv = path_handler.proxy_argv(
        members, places.handler_listen(plan), places.handler_monitor(plan), places.source_socket(plan)
    )
    ctx.hold(unit)
    host = await ctx.source()
    await files.write(host, f"{plan.source.paths.link_state(plan.id)}/link.json", _link_record(ctx).encode())
    handler = service.Service(unit.name, plan.source.paths.unit(unit.name), argv, restart=True)
    await service.start_ready(host, handler, places.handler_monitor(plan))


def _link_record(ctx: Context) -> str:
    plan = ctx.plan
    upstream = plan.guest.migration if plan.guest.upstream else None
    members = places.taken_members(plan)
    return codec.dump(LinkRecord(plan.id, plan.vm, plan.generation, plan.target.host, members, upstream))


@step
async def _try_fence(ctx: Context) -> None:
    """The image must be locked while the guest runs: if the path handler can open it now, nothing fences it later."""
    session = await ctx.path_handler()
    for member in places.members(ctx.plan):
        if top_image(member.chain) is None:
            continue
        try:
            await blockdev.add_all(session, path_handler.taken(member))
        except QemuError as error:
            if "lock" in error.reason:
                continue
            raise
        raise RefusedError(
            f"image locks do not work for {member.chain[0]}",
            host=ctx.plan.source.host,
            hint="put the image on a local file system, and do not run QEMU with locking=off",
        )


@step
async def _make_members(ctx: Context) -> None:
    """The empty overlays on the target."""
    paths, vm = ctx.plan.target.paths, ctx.plan.vm
    host = await ctx.target()
    # The state folder has what the guest said there when it was there before.
    ctx.hold(Room(host.name, paths.vm_state(vm)), Folder(host.name, paths.vm_run(vm)))
    await files.make_folders(host, f"{paths.state}/disks", *_ROOMS[ctx.plan.guest.kind](paths, vm))
    for disk in ctx.plan.disks:
        await _make_member(ctx, disk)


async def _make_member(ctx: Context, disk: DiskPlan) -> None:
    if disk.member is None:
        return
    ctx.hold(File(ctx.plan.target.host, disk.member.path))
    options = HANDLERS[disk.handler].overlay_options(disk.disk.logical_block)
    await qemu_img.create_overlay(await ctx.target(), disk.member.path, disk.disk.size, options)


@step
async def _start_target(ctx: Context) -> None:
    """The QEMU on the target, stopped and waiting (`-S -incoming defer`)."""
    plan, unit = ctx.plan, places.guest_unit(ctx.plan)
    host = await ctx.target()
    ctx.hold(File(plan.target.host, plan.target.paths.console_log(plan.vm, plan.generation)), unit)
    guest = service.Service(unit.name, plan.target.paths.unit(unit.name), plan.target_argv)
    await service.start_ready(host, guest, places.target_sockets(plan).control)
    try:
        target = await ctx.target_qemu()
    except QemuGoneError as error:
        words = await service.last_words(host, guest.folder)
        raise EsdError(f"QEMU does not start for {plan.vm}: {words}", host=plan.target.host) from error
    await _check_sizes(ctx, target)
    await changes.note(target, plan)


# A domain's sockets are libvirt's.
_ROOMS: dict[Kind, Callable[[HostPaths, str], tuple[str, ...]]] = {
    Kind.BARE: lambda paths, vm: (paths.vm_state(vm), paths.vm_run(vm)),
    Kind.DOMAIN: lambda paths, vm: (paths.vm_state(vm),),
}
# What the target has to have ready: a QEMU that waits, or what the QEMU reads by that libvirt will start.
_WAIT = {Kind.BARE: _start_target, Kind.DOMAIN: relay.start}


async def _check_sizes(ctx: Context, session: Session) -> None:
    """QEMU does not compare sizes, and reads wrong data if they differ: so we do, to the byte."""
    nodes = await blockdev.named(session)
    for disk in ctx.plan.disks:
        for name in (names.overlay(disk.disk.suid), names.remote(disk.disk.suid)):
            size = nodes[name]["image"]["virtual-size"] if name in nodes else disk.disk.size
            if size != disk.disk.size:
                raise EsdError(f"{name} has {size} bytes, the disk {disk.disk.size}", host=ctx.plan.target.host)
