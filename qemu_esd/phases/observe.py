"""What both QEMUs of a migration say of themselves, by their own monitors. Nothing is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from qemu_esd.errors import DomainBusyError, HostError, HostKeyError, QemuGoneError, TimedOutError
from qemu_esd.hypervisors import processes
from qemu_esd.model.plan import Site
from qemu_esd.model.recovery import Seen, Source, Target
from qemu_esd.phases.context import Context
from qemu_esd.qmp import machine, migrate
from qemu_esd.qmp.session import Session

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
    answer = await _ask(ctx, ctx.plan.source, ctx.source_qemu, lost)
    if isinstance(answer, str):
        return Source(answer)
    status, state = answer
    if status in migrate.BUSY:
        return Source.LEAVING
    return Source.GAVE if state in _GIVEN_AWAY else Source.RUNS


async def _target(ctx: Context, lost: Collection[str]) -> Target:
    answer = await _ask(ctx, ctx.plan.target, ctx.target_qemu, lost)
    return Target(answer) if isinstance(answer, str) else _TARGETS.get(answer[1], Target.RAN)


async def _ask(
    ctx: Context, site: Site, qemu: Callable[[], Awaitable[Session]], lost: Collection[str]
) -> tuple[str, str] | str:
    """The states of migration and machine, by its QEMU's own word; or "gone", or "unknown"."""
    if site.host in lost:
        return "gone"
    try:
        if not await _has_process(ctx, site):
            return "gone"
        session = await qemu()
        return (await migrate.progress(session)).status, await machine.run_state(session)
    except QemuGoneError:
        return "gone"
    except HostKeyError:
        raise
    except (HostError, TimedOutError, DomainBusyError):
        # Its host, or the QEMU itself: one that hangs may go on at any time, so it is not gone.
        return "unknown"


async def _has_process(ctx: Context, site: Site) -> bool:
    return await processes.find(await ctx.hosts.get(site.host), ctx.plan.vm) is not None
