"""The switchover of a domain: libvirt moves its memory, led by us, and leaves it paused on the target.

libvirt goes through the switchover without asking, so `switching` is entered before. It is also the guard: when our
connections end it undoes what is not finished, so that a guest never stands still because we are gone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from qemu_esd.errors import EsdError, LibvirtError, QemuGoneError, RefusedError
from qemu_esd.hosts import files
from qemu_esd.hypervisors.libvirt import acts
from qemu_esd.hypervisors.libvirt.connection import Connection
from qemu_esd.hypervisors.libvirt.events import LIFECYCLE, Listener
from qemu_esd.journal import codec
from qemu_esd.log import logger, step
from qemu_esd.model.disk import top_image
from qemu_esd.model.plan import DiskPlan, Plan, Transport
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import State
from qemu_esd.model.resource import IncomingDomain, OutgoingDomain
from qemu_esd.phases import places, stream
from qemu_esd.phases.context import Context
from qemu_esd.qmp import jobs, machine, migrate

if TYPE_CHECKING:
    from qemu_esd.hypervisors.libvirt.writer import NewDisk

# How libvirt ends a move that it is told to end.
ABORT_SECONDS = 150.0


@step
async def move(ctx: Context) -> None:
    """Returns when the target has all of the guest and does not run it. libvirt ends the source's QEMU beside us.

    A kill before that: libvirt lets it run on the source. A kill after it: both hosts are asked, as ever.
    """
    here, there = await _libvirts(ctx)
    if await jobs.running(await ctx.source_qemu()):
        raise EsdError("a block job has started on the source meanwhile", host=here.host)
    how = await _how(ctx, here)
    ctx.enter(State.SWITCHING)
    coming = IncomingDomain(there.host, ctx.plan.vm, ctx.plan.guest.uuid)
    ctx.hold(coming, OutgoingDomain(here.host, coming.vm, coming.uuid, coming, places.path_handler(ctx.plan)))
    with (
        here.events.listening(ctx.plan.vm, LIFECYCLE) as leaving,
        there.events.listening(ctx.plan.vm, LIFECYCLE) as arriving,
    ):
        moving = asyncio.ensure_future(acts.move(here, there, ctx.plan.vm, how))
        ctx.beside.add(moving)
        # Nobody may be there any more to hear what came of it.
        moving.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await stream.unless(_loaded(ctx, moving, there, arriving), _stopped(ctx, here, leaving), _tell(ctx))
        except BaseException:
            await asyncio.shield(_break_off(ctx, here, moving))
            raise


async def _libvirts(ctx: Context) -> tuple[Connection, Connection]:
    return await ctx.monitors.libvirt(ctx.plan.source.host), await ctx.monitors.libvirt(ctx.plan.target.host)


async def _how(ctx: Context, here: Connection) -> acts.Move:
    """Its description is asked for now, and kept in the link's folder on the source alone: it has secrets."""
    from qemu_esd.hypervisors.libvirt import writer

    plan, now = ctx.plan, await acts.describe(here, ctx.plan.vm)
    _check_unchanged(plan, now)
    await files.write(await ctx.source(), kept(plan), codec.dump(now).encode())
    disks = [_new_disk(plan, disk) for disk in plan.disks]
    moved = acts.Description(
        writer.moved(now.live, disks), None if now.persistent is None else writer.moved(now.persistent, disks)
    )
    listen = None if plan.transport is Transport.SSH else plan.target.address
    return acts.Move(moved, _uri(plan), listen, plan.transport is Transport.TLS, plan.downtime_ms)


def _check_unchanged(plan: Plan, now: acts.Description) -> None:
    """Somebody else may speak to libvirt too. From now on its own move keeps disks from being changed."""
    from qemu_esd.hypervisors.libvirt.reader import read

    local = {disk.target: disk.chain[0].place for disk in read(now.live).disks if disk.is_local}
    if local != {disk.disk.id: top.path for disk in plan.disks if (top := top_image(disk.disk.chain))}:
        what = f"the disks of {plan.vm} are not what they were when its move was planned: {local}"
        raise EsdError(what, host=plan.source.host)


def kept(plan: Plan) -> str:
    """What the domain was on the source."""
    return f"{plan.source.paths.link_state(plan.id)}/domain.json"


def _new_disk(plan: Plan, disk: DiskPlan) -> NewDisk:
    from qemu_esd.hypervisors.libvirt.writer import NewDisk

    assert disk.member is not None
    assert plan.domain is not None
    errors = plan.domain.read_errors
    socket = places.relay_socket(plan.target.paths, plan.id)
    return NewDisk(disk.disk.id, disk.member.path, socket, disk.link.export, disk.handler.keeps_reads, errors)


def _uri(plan: Plan) -> str:
    """Where the guest's memory goes: libvirt has both ends open it by the same words."""
    if plan.transport is Transport.SSH:
        return f"unix://{places.ram_socket(plan, plan.target)}"
    address = f"[{plan.target.address}]" if ":" in plan.target.address else plan.target.address
    return f"tcp://{address}:{plan.ram_port}"


async def _loaded(ctx: Context, moving: asyncio.Future[None], there: Connection, arriving: Listener) -> None:
    """The event comes before libvirt's answer, which only follows when the source's QEMU has ended."""
    binding = there.binding
    paused = asyncio.ensure_future(
        _event(arriving, binding.VIR_DOMAIN_EVENT_SUSPENDED, binding.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED)
    )
    try:
        await asyncio.wait({moving, paused}, return_when=asyncio.FIRST_COMPLETED)
        if not paused.done():
            # Its answer without the event: the connection was lost for a moment. Raises what libvirt says.
            moving.result()
    except LibvirtError as error:
        raise EsdError(f"libvirt could not move {ctx.plan.vm}: {error.reason}", host=ctx.plan.source.host) from error
    finally:
        paused.cancel()


async def _event(listener: Listener, kind: int, detail: int) -> None:
    while (await listener.get())["data"] != {"event": kind, "detail": detail}:
        pass


async def _stopped(ctx: Context, here: Connection, leaving: Listener) -> NoReturn:
    """Notes when the guest stopped for the switchover; raises when it did for another reason: it would run again."""
    binding = here.binding
    while True:
        told = (await leaving.get())["data"]
        if told["event"] != binding.VIR_DOMAIN_EVENT_SUSPENDED:
            continue
        if told["detail"] == binding.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED:
            ctx.clock.mark("stopped")
        elif told["detail"] in (binding.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED, binding.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR):
            state = await machine.run_state(await ctx.source_qemu())
            raise EsdError(f"{ctx.plan.vm} did not keep running while it moved: it is {state} since", host=here.host)


async def _tell(ctx: Context) -> NoReturn:
    """Reports how much memory has moved, which has no event."""
    source = await ctx.source_qemu()
    while True:
        try:
            now = await migrate.progress(source)
            ctx.report(Progress("RAM", now.transferred, now.transferred + now.remaining))
        except (EsdError, QemuGoneError) as error:
            logger.debug("no progress to tell", error=str(error))
        await asyncio.sleep(stream.PROGRESS_SECONDS)


async def _break_off(ctx: Context, here: Connection, moving: asyncio.Future[None]) -> None:
    """libvirt undoes its move; what it cannot undo any more is found out by whoever asks both hosts next."""
    try:
        if not moving.done():
            await acts.abort(here, ctx.plan.vm)
        await asyncio.wait({moving}, timeout=ABORT_SECONDS)
    except EsdError as error:
        logger.info("the move cannot be broken off", host=here.host, error=str(error))


@step
async def start_target(ctx: Context) -> None:
    """The guest runs on the target. One that runs already, or was stopped by something else since, is left as it is."""
    target = await ctx.target_qemu()
    if await machine.run_state(target) in ("paused", "prelaunch"):
        await acts.resume(await ctx.monitors.libvirt(target.host), ctx.plan.vm)
    ctx.clock.mark("resumed")


async def start_again(ctx: Context) -> None:
    """Its QEMU has ended on the target: it starts from its disks, paused. Its definition reads by the relay."""
    there, vm = await ctx.monitors.libvirt(ctx.plan.target.host), ctx.plan.vm
    if not await acts.has(there, ctx.plan.guest.uuid):
        what = f"{vm} was transient, and nothing of it is left in libvirt"
        raise RefusedError(what, host=there.host, hint=f"its disks are whole with what {ctx.plan.source.host} serves")
    await acts.start_paused(there, vm)


async def bring_back(ctx: Context) -> None:
    """On the source, as it was there. Back already is fine."""
    here, data = await ctx.monitors.libvirt(ctx.plan.source.host), await files.read(await ctx.source(), kept(ctx.plan))
    if data is not None:
        await acts.bring_back(here, codec.load(data, acts.Description))


async def end_target(ctx: Context) -> None:
    """Neither a QEMU nor a definition of it is left there."""
    await acts.end(await ctx.monitors.libvirt(ctx.plan.target.host), ctx.plan.guest.uuid)


async def end_source(ctx: Context) -> None:
    """libvirt has ended the source's QEMU, and with it the definition; where it was kept from it, this does."""
    if ctx.beside:
        await asyncio.wait(ctx.beside, timeout=ABORT_SECONDS)
    here = await ctx.monitors.libvirt(ctx.plan.source.host)
    await check_given_away(ctx)
    await acts.end(here, ctx.plan.guest.uuid)


async def check_given_away(ctx: Context) -> None:
    """One that has a guest is not the one that gave its guest away."""
    try:
        source = await ctx.source_qemu()
        state = await machine.run_state(source)
    except QemuGoneError:
        logger.info("the source QEMU is gone already", host=ctx.plan.source.host)
        return
    if state != "postmigrate":
        what = f"the QEMU of {ctx.plan.vm} is {state}, although its guest has moved to {ctx.plan.target.host}"
        raise EsdError(what, host=source.host, hint=f"qemu-esd status {ctx.plan.vm}")
