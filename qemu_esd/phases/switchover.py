"""Switchover: memory and CPU move, and the target runs.

The commit point is the source's `completed`; before it every failure rolls back.
"""

from __future__ import annotations

from collections.abc import Sequence

from qemu_esd.errors import EsdError
from qemu_esd.graph import names, tls
from qemu_esd.hosts import service
from qemu_esd.log import logger, step
from qemu_esd.model.disk import TlsTcp
from qemu_esd.model.plan import DiskPlan, Plan, Transport
from qemu_esd.model.record import State
from qemu_esd.model.resource import MigrationSettings, Outgoing, QemuObject
from qemu_esd.phases import places, stream
from qemu_esd.phases.context import Context, together
from qemu_esd.qmp import blockdev, jobs, machine, migrate
from qemu_esd.qmp.session import Session

# From pre-switchover on the guest is stopped: longer than this and it is better off on the source.
SWITCH_SECONDS = 60.0
# RAM of a busy guest may take long; a day is a bound that nobody meets by accident.
RAM_SECONDS = 86400.0
# QEMU's own default (128 MiB/s) is below what a usual link carries.
UNLIMITED = 1 << 50
# Loaded from a stream, or from nothing: it has yet to be told to run.
_NOT_STARTED = ("paused", "prelaunch")


@step
async def move_memory(ctx: Context) -> None:
    """RAM moves while the guest runs; returns at pre-switchover, when QEMU has stopped it on the source."""
    source, target, plan = await ctx.source_qemu(), await ctx.target_qemu(), ctx.plan
    await _apply_settings(ctx, source, target)
    await migrate.listen(target, ram_listen(plan))
    ctx.hold(Outgoing(source.host, source.monitor, places.guest_unit(plan), places.path_handler(plan)))
    with source.listening("MIGRATION") as seen, source.listening("STOP", "SHUTDOWN") as stops:
        await migrate.start(source, ram_connect(plan))
        try:
            await stream.unless(
                stream.reached(ctx, source, target, seen, "pre-switchover", RAM_SECONDS),
                stream.stops(ctx, source, stops),
                stream.stands_still(ctx, source),
            )
        except BaseException:
            await _end_target(ctx)
            raise
    ctx.clock.mark("stopped")


async def _end_target(ctx: Context) -> None:
    """Before anything is asked: a source whose peer is silent in the handshake is deaf, and its guest stands still.

    It has not been told to go on from pre-switchover, so the target cannot have all of the guest.
    """
    unit = places.guest_unit(ctx.plan)
    try:
        await service.stop(await ctx.target(), ctx.plan.target.paths.unit(unit.name), unit.name)
    except EsdError as error:
        # It is tried again when all is undone, and what cannot be undone then is told.
        logger.info("the target cannot be ended", host=unit.host, error=str(error))


@step
async def commit(ctx: Context) -> None:
    """The guest is stopped on the source, nothing writes to its disks: let the last of it go over.

    A kill before `completed`: the source says which side owns the guest. A kill after it: the target does, paused.
    """
    source, target, plan = await ctx.source_qemu(), await ctx.target_qemu(), ctx.plan
    # A target that we have lost while memory moved could not be told to run, and the guest would run nowhere.
    await together(_check_quiet(source), _check_unchanged(source, plan.disks), machine.hears(target))
    ctx.enter(State.SWITCHING)
    with source.listening("MIGRATION") as seen:
        await migrate.go_on(source)
        try:
            await stream.unless(
                stream.reached(ctx, source, target, seen, "completed", SWITCH_SECONDS), stream.deafness(target)
            )
        except BaseException:
            # Only then does it answer, and what it answers decides where the guest goes on.
            await migrate.break_off(source)
            raise


@step
async def check_loaded(ctx: Context) -> None:
    """The target has all of the guest and waits to be told to run: only then may it be told so."""
    target = await ctx.target_qemu()
    if (state := await machine.run_state(target)) != "paused":
        raise EsdError(f"the target's QEMU is {state} after the move, not paused", host=target.host)


@step
async def start_target(ctx: Context) -> None:
    """The guest runs on the target. A kill before `cont` is answered: recovery asks the target, never the source.

    One that runs already, or was stopped by something else since, is left as it is.
    """
    target = await ctx.target_qemu()
    if await machine.run_state(target) in _NOT_STARTED:
        with target.listening("RESUME") as resumed:
            await machine.cont(target)
            await resumed.wait(lambda _: True, SWITCH_SECONDS, "the guest running on the target")
    ctx.clock.mark("resumed")
    if ctx.clock.ms("stopped") is not None:
        await stream.tell_end(ctx, await ctx.source_qemu())


async def _apply_settings(ctx: Context, source: Session, target: Session) -> None:
    """Capabilities and parameters of both ends; the source's former ones are written down first."""
    old = await _hold_settings(ctx, source)
    tls = await _add_credentials(ctx, source)
    hostname = ctx.plan.target.address if tls else ""
    downtime = ctx.plan.downtime_ms or old.downtime_limit
    await migrate.set_parameters(source, migrate.Parameters(tls, hostname, UNLIMITED, downtime))
    await migrate.set_capabilities(source, dict.fromkeys(migrate.SOURCE_CAPABILITIES, True))
    incoming = names.incoming_credentials(ctx.plan.id) if tls else ""
    await migrate.set_parameters(target, migrate.Parameters(incoming, "", UNLIMITED, downtime))
    await migrate.set_capabilities(target, dict.fromkeys(migrate.TARGET_CAPABILITIES, True))


async def _hold_settings(ctx: Context, source: Session) -> migrate.Parameters:
    now, old = await migrate.capabilities(source), await migrate.parameters(source)
    former = tuple((name, now[name]) for name in migrate.SOURCE_CAPABILITIES)
    ctx.hold(
        MigrationSettings(
            source.host,
            source.monitor,
            former,
            old.tls_creds,
            old.tls_hostname,
            old.max_bandwidth,
            old.downtime_limit,
        )
    )
    return old


async def _add_credentials(ctx: Context, source: Session) -> str:
    """The key for the RAM stream, in the source QEMU. Returns the object's id, "" without TLS."""
    listen = places.handler_listen(ctx.plan)
    if not isinstance(listen, TlsTcp):
        return ""
    id = places.credentials(ctx.plan)
    ctx.hold(QemuObject(source.host, source.monitor, id))
    await machine.add_object(source, "tls-creds-psk", id, tls.credentials("client", listen.key_dir))
    return id


def ram_listen(plan: Plan) -> str:
    """Where the target's QEMU waits for the stream: one address, never all of them."""
    if plan.transport is Transport.SSH:
        return f"unix:{places.ram_socket(plan, plan.target)}"
    address = plan.target.address
    return f"tcp:[{address}]:{plan.ram_port}" if ":" in address else f"tcp:{address}:{plan.ram_port}"


def ram_connect(plan: Plan) -> str:
    """Where the source's QEMU sends it."""
    if plan.transport is Transport.SSH:
        return f"unix:{places.ram_socket(plan, plan.source)}"
    return ram_listen(plan)


async def _check_quiet(source: Session) -> None:
    """A job that writes while images are given up aborts QEMU."""
    if await jobs.running(source):
        raise EsdError("a block job has started on the source meanwhile", host=source.host)


async def _check_unchanged(source: Session, disks: Sequence[DiskPlan]) -> None:
    """Somebody else may have a monitor too. A snapshot sends writes where the target does not look for them, and a
    disk that has grown is larger than its member on the target. Asked once, because the guest stands still."""
    rows = await blockdev.devices(source)
    now = {blockdev.device_path(row["qdev"]): row.get("inserted") for row in rows if "qdev" in row}
    for disk in (plan.disk for plan in disks):
        medium = now.get(disk.qdev)
        if medium is None or (medium["node-name"], medium["image"]["virtual-size"]) != (disk.node, disk.size):
            what = f"the disk {disk.id} was resized, snapshotted or taken out while the guest moved"
            raise EsdError(what, host=source.host)
