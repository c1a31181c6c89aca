"""`rollback --discard-target`: the guest starts on the source again, from its images as of the switchover.

For a target that is dead. What the guest has written there since is given up, and so is its memory. First the target is
fenced, as far as it answers, then the source's images get their names back. A kill anywhere: the state `discarding` is
on the disk before the first act, and every act asks whether it is done already.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from qemu_esd.errors import EsdError, RefusedError
from qemu_esd.hosts import files, qemu_img, service
from qemu_esd.hosts.base import Host
from qemu_esd.hypervisors import records
from qemu_esd.journal import registry, shelf
from qemu_esd.model.disk import images, top_image
from qemu_esd.model.host import guest_sockets
from qemu_esd.model.record import DiskRecord, GuestRecord, LinkRecord, State
from qemu_esd.model.recovery import Seen, Source
from qemu_esd.model.vm import Upstream
from qemu_esd.phases import arrival, aside, domain_move, handover, identity, linkends, places, restart
from qemu_esd.phases.context import Context
from qemu_esd.qmp import machine
from qemu_esd.qmp.session import Session, open_session


@dataclass(frozen=True)
class DiskLoss:
    """What of one disk is given up. `bytes`: at most so many were written on the target; None: nobody can tell.

    `stays`: it had no space there, so all its writes went to the source. `copies`: what was only read counts too.
    """

    disk: str
    bytes: int | None
    stays: bool
    copies: bool


@dataclass(frozen=True)
class Loss:
    """What is given up, since the switchover (`since`: ISO 8601; None: it is written down nowhere)."""

    since: str | None
    disks: tuple[DiskLoss, ...]


# Asked once, when it is known what would be lost and nothing has been changed.
Agree = Callable[[Loss], Awaitable[bool]]


async def discard(ctx: Context, seen: Seen, lost: Collection[str], agree: Agree | None) -> None:
    """Bring the guest back. Raises RefusedError (nothing was changed), or EsdError: the same command goes on.

    With the target's host in `lost` the state stays `discarding`, so that it can be told later.
    """
    if ctx.journal.story.state is not State.DISCARDING:
        loss = await examine(ctx, lost)
        if agree is not None and not await agree(loss):
            raise RefusedError("not confirmed, and nothing was changed")
        ctx.enter(State.DISCARDING)
    if ctx.plan.target.host not in lost:
        await _fence_target(ctx)
    await _start_on_source(ctx, seen)
    if ctx.plan.target.host not in lost:
        ctx.enter(State.DISCARDED)


# ---- what there is to lose


async def examine(ctx: Context, lost: Collection[str]) -> Loss:
    """What would be given up. Raises RefusedError if there is nothing to come back to, or the guest has moved on."""
    plan = ctx.plan
    newest = shelf.newest_of(plan.vm)
    if newest is not None and newest.plan.id != plan.id:
        what = f"{plan.vm} has moved again since: the newest migration is {newest.plan.id}"
        raise RefusedError(what, hint=f"qemu-esd status {shlex.quote(plan.vm)}")
    since = await _check_source(ctx)
    there = plan.target.host not in lost
    record = await _check_target(ctx) if there else arrival.guest_record(plan)
    return Loss(since, tuple([await _loss(ctx, disk, there) for disk in record.disks]))


async def _check_source(ctx: Context) -> str | None:
    """The images are there, as they were left. Returns when that was."""
    plan, host = ctx.plan, await ctx.source()
    link = await records.link(host, plan.source.paths, plan.id)
    if link is None or link.put_aside:
        what = f"{plan.vm} needs nothing from here any more, and what is left is old"
        raise RefusedError(
            what, host=host.name, hint=f"it is whole on {plan.target.host}: qemu-esd vm start {shlex.quote(plan.vm)}"
        )
    here = await records.guest(host, plan.source.paths, plan.vm)
    if here is not None and (here.generation != plan.guest.generation or here.moved_to not in (None, plan.target.host)):
        raise RefusedError(
            f"{plan.vm} has been here again since", host=host.name, hint=f"qemu-esd status {shlex.quote(plan.vm)}"
        )
    tops = [top.path for member in link.members if (top := top_image(member.chain))]
    for path in tops:
        await _check_image(host, path, aside.name_aside(path, plan.id))
    await identity.check(host, plan.source.paths.unit(places.path_handler_name(plan.id)))
    return await aside.time_of(host, aside.name_aside(tops[0], plan.id)) if tops else None


async def _check_image(host: Host, path: str, put_aside: str) -> None:
    present = await files.existing(host, path, put_aside)
    if not present:
        raise RefusedError(f"the image {put_aside} is gone", host=host.name, hint="put it back, if there is a copy")
    if len(present) > 1:
        what = f"{path} is there again, beside {put_aside}"
        raise RefusedError(what, host=host.name, hint=f"move {path} away: its name is needed")


async def _check_target(ctx: Context) -> GuestRecord:
    """The guest as the target's host knows it, which must not be by another migration."""
    plan, host = ctx.plan, await ctx.target()
    there = await records.guest(host, plan.target.paths, plan.vm)
    if there is not None and there.moved_to is not None:
        hint = f"qemu-esd status {shlex.quote(plan.vm)}"
        raise RefusedError(f"{plan.vm} has moved on to {there.moved_to}", host=host.name, hint=hint)
    record = await arrival.record_on_target(ctx)
    if not record.upstream:
        what = f"{plan.vm} is settled there: it needs nobody, and what {plan.source.host} has is old"
        raise RefusedError(what, host=host.name, hint=f"qemu-esd vm start {shlex.quote(plan.vm)}")
    return record


async def _loss(ctx: Context, disk: DiskRecord, there: bool) -> DiskLoss:
    kept, copies = images(disk.chain), disk.handler is None or disk.handler.keeps_reads
    if not there:
        return DiskLoss(disk.id, None, not kept, copies)
    try:
        written = sum([await qemu_img.data_bytes(await ctx.target(), image.path) for image in kept])
    except EsdError:
        return DiskLoss(disk.id, None, not kept, copies)
    return DiskLoss(disk.id, written, not kept, copies)


# ---- the target


async def _fence_target(ctx: Context) -> None:
    """Nothing there starts the guest: its disks are aside, each with a note, and its record says where it is."""
    plan, host, paths = ctx.plan, await ctx.target(), ctx.plan.target.paths
    there = await records.guest(host, paths, plan.vm)
    ours = there is None or there.migration == plan.id
    if there is not None and ours and there.moved_to is not None:
        return
    unit = places.guest_unit_name(plan.vm)
    if ours:
        if plan.domain is not None:
            await domain_move.end_target(ctx)
        await service.stop(host, paths.unit(unit), unit)
        await files.remove_tree(host, paths.vm_run(plan.vm))
    await linkends.drop(host, paths, plan.id)
    record = there if there is not None and ours else arrival.guest_record(plan)
    await _put_aside(ctx, host, record)
    if ours:
        left = replace(record, moved_to=plan.source.host, upstream=(), left_behind=(), argv=())
        await records.write_guest(host, paths, left)


async def _put_aside(ctx: Context, host: Host, record: GuestRecord) -> None:
    """The members, under names that start no guest; `release` finds them by the record of the link."""
    plan = ctx.plan
    kept = {image.path: disk for disk in record.disks for image in images(disk.chain)}
    names = {path: f"{path}.discarded-{plan.id}" for path in kept}
    members = LinkRecord(plan.id, plan.vm, plan.generation, plan.source.host, (), put_aside=tuple(names.values()))
    await records.write_link(host, plan.target.paths, members)
    for path in await files.existing(host, *kept) if kept else ():
        note = json.dumps(_epitaph(ctx, path, kept[path]), indent=2)
        await files.write(host, aside.tombstone(names[path]), f"{note}\n".encode())
        await files.rename(host, path, names[path])


def _epitaph(ctx: Context, path: str, disk: DiskRecord) -> dict[str, object]:
    plan = ctx.plan
    return {
        "what": f"what {plan.vm} wrote here, given up when it was started on {plan.source.host} again",
        "vm": plan.vm,
        "suid": disk.suid,
        "generation": plan.generation,
        "migration": plan.id,
        "source": plan.source.host,
        "was": path,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


# ---- the source


async def _start_on_source(ctx: Context, seen: Seen) -> None:
    """The images get their names back, and the guest starts from them. The link's folder goes last: then all is done.

    A guest that somebody else had started is left to him: only he knows how.
    """
    plan, host, paths = ctx.plan, await ctx.source(), ctx.plan.source.paths
    link = await records.link(host, paths, plan.id)
    if link is None:
        return
    if seen.source is not Source.RUNS:
        await handover.end_qemu(ctx)
        await aside.stop_serving(host, paths, plan.id)
        await aside.unmark(host, link)
    record = await _record(ctx)
    await records.write_guest(host, paths, record)
    if plan.domain is not None:
        await domain_move.bring_back(ctx)
    elif record.argv:
        await _run(ctx, seen, record)
    registry.remember(plan.vm, host.name)
    await files.remove_tree(host, paths.link_state(plan.id))


async def _record(ctx: Context) -> GuestRecord:
    """The guest as it was here before, one generation after the one that is given up."""
    plan, host, paths = ctx.plan, await ctx.source(), ctx.plan.source.paths
    here = await records.guest(host, paths, plan.vm)
    if here is not None and here.generation > plan.generation:
        return here
    former = await records.former(host, paths, plan.id) or (here if here and here.moved_to is None else None)
    former = former or GuestRecord(plan.vm, plan.guest.uuid, 0, ())
    left = (*former.left_behind, Upstream(plan.target.host, plan.id))
    return replace(former, generation=plan.generation + 1, left_behind=left)


async def _run(ctx: Context, seen: Seen, record: GuestRecord) -> None:
    """Started, perhaps by us before we were killed, it has yet to be told to run."""
    if seen.source is Source.RUNS:
        await _cont(await ctx.source_qemu())
        return
    host, paths = await ctx.source(), ctx.plan.source.paths
    await restart.start_again(host, paths, record)
    async with open_session(host, guest_sockets(paths, record.name).control, record.name) as qemu:
        await _cont(qemu)


async def _cont(qemu: Session) -> None:
    if await machine.run_state(qemu) in ("prelaunch", "paused"):
        await machine.cont(qemu)
