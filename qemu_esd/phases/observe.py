"""What both QEMUs of a migration say of themselves, by their own monitors. Nothing is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from qemu_esd.errors import HostError, HostKeyError, QemuGoneError
from qemu_esd.hypervisors import processes
from qemu_esd.model.plan import Site
from qemu_esd.model.recovery import Seen, Source, Target
from qemu_esd.phases.checks import BUSY
from qemu_esd.phases.context import Context
from qemu_esd.qmp import machine, migrate

# `completed` is said an instant before the run state follows.
_GIVEN_AWAY = ("postmigrate", "finish-migrate")
_TARGETS = {"inmigrate": Target.WAITS, "paused": Target.LOADED, "prelaunch": Target.LOADED}


async def observe(ctx: Context, lost: Collection[str] = ()) -> Seen:
    """Both ends side by side. A host in `lost` counts as dead, by the word of the operator.

    Raises MonitorBusyError while somebody else works on one of them.
    """
    source, target = await asyncio.gather(_source(ctx, lost), _target(ctx, lost))
    return Seen(source, target)


async def _source(ctx: Context, lost: Collection[str]) -> Source:
    if ctx.plan.source.host in lost:
        return Source.GONE
    try:
        if not await _has_process(ctx, ctx.plan.source):
            return Source.GONE
        qemu = await ctx.source_qemu()
        status, state = (await migrate.progress(qemu)).status, await machine.run_state(qemu)
    except QemuGoneError:
        return Source.GONE
    except HostKeyError:
        raise
    except HostError:
        return Source.UNKNOWN
    if status in BUSY:
        return Source.LEAVING
    return Source.GAVE if state in _GIVEN_AWAY else Source.RUNS


async def _target(ctx: Context, lost: Collection[str]) -> Target:
    if ctx.plan.target.host in lost:
        return Target.GONE
    try:
        if not await _has_process(ctx, ctx.plan.target):
            return Target.GONE
        state = await machine.run_state(await ctx.target_qemu())
    except QemuGoneError:
        return Target.GONE
    except HostKeyError:
        raise
    except HostError:
        return Target.UNKNOWN
    return _TARGETS.get(state, Target.RAN)


async def _has_process(ctx: Context, site: Site) -> bool:
    return await processes.find(await ctx.hosts.get(site.host), ctx.plan.vm) is not None
