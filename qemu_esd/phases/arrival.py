"""What is written down once the guest runs on the target: its record there, and on the source that it has left."""

from __future__ import annotations

from dataclasses import replace

from qemu_esd.hypervisors import records
from qemu_esd.journal import registry
from qemu_esd.log import step
from qemu_esd.model.disk import Chain
from qemu_esd.model.plan import DiskPlan, Plan
from qemu_esd.model.record import DiskRecord, GuestRecord
from qemu_esd.model.vm import Upstream
from qemu_esd.phases.context import Context


@step
async def write_down(ctx: Context) -> None:
    """Both hosts know where the guest is. A kill before this: `resume` knows it from the journal."""
    plan = ctx.plan
    record = await record_on_target(ctx)
    await records.write_guest(await ctx.target(), plan.target.paths, record)
    # The links stay in it: by them this host knows after a reboot which of its path handlers are still needed.
    left = replace(record, generation=plan.guest.generation, moved_to=plan.target.host, left_behind=(), argv=())
    source, paths = await ctx.source(), plan.source.paths
    here = await records.guest(source, paths, plan.vm)
    if here is not None and here.moved_to is None:
        # What `rollback --discard-target` goes back to.
        await records.write_former(source, paths, plan.id, here)
    await records.write_guest(source, paths, left)
    registry.remember(plan.vm, plan.source.host)
    registry.remember(plan.vm, plan.target.host)


async def record_on_target(ctx: Context) -> GuestRecord:
    """The guest's record there, if this migration has written it: it may have been changed since. Else a new one."""
    plan = ctx.plan
    there = await records.guest(await ctx.target(), plan.target.paths, plan.vm)
    return there if there is not None and there.migration == plan.id else guest_record(plan)


def guest_record(plan: Plan) -> GuestRecord:
    """The guest as it is on the target right after the switchover."""
    return GuestRecord(
        name=plan.vm,
        uuid=plan.guest.uuid,
        generation=plan.generation,
        disks=tuple(_disk_record(disk) for disk in plan.disks),
        migration=plan.id,
        upstream=(Upstream(plan.source.host, plan.id), *plan.guest.upstream),
        left_behind=plan.guest.left_behind,
        bandwidth=plan.bandwidth,
        argv=plan.target_argv,
        kind=plan.guest.kind,
    )


def _disk_record(plan: DiskPlan) -> DiskRecord:
    chain: Chain = (plan.member, plan.link) if plan.member else (plan.link,)
    return DiskRecord(plan.disk.id, plan.disk.suid, plan.disk.size, plan.disk.data, chain, plan.handler)
