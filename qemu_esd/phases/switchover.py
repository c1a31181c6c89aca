"""Switchover: memory and CPU move, and the target runs.

The commit point is the source's `completed`; before it every failure rolls back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from qemu_esd.errors import EsdError, QemuError, QemuGoneError
from qemu_esd.graph import names
from qemu_esd.hosts import files
from qemu_esd.model.disk import TlsTcp
from qemu_esd.model.plan import DiskPlan, Plan, Transport
from qemu_esd.model.record import State
from qemu_esd.model.resource import MigrationSettings, Outgoing, QemuObject
from qemu_esd.phases import places
from qemu_esd.phases.context import Context, Progress
from qemu_esd.qmp import blockdev, jobs, machine, migrate
from qemu_esd.qmp.session import Events, Session

# From pre-switchover on the guest is stopped: longer than this and it is better off on the source.
SWITCH_SECONDS = 60.0
# RAM of a busy guest may take long; a day is a bound that nobody meets by accident.
RAM_SECONDS = 86400.0
PROGRESS_SECONDS = 0.5
# QEMU's own default (128 MiB/s) is below what a usual link carries.
UNLIMITED = 1 << 50
# Run states of a source that QEMU itself has stopped for the switchover, or that has not stopped.
_ON_ITS_WAY = ("running", "finish-migrate", "postmigrate")
# Loaded from a stream, or from nothing: it has yet to be told to run.
_NOT_STARTED = ("paused", "prelaunch")


async def move_memory(ctx: Context) -> None:
    """RAM moves while the guest runs; returns at pre-switchover, when QEMU has stopped it on the source."""
    source, target, plan = await ctx.source_qemu(), await ctx.target_qemu(), ctx.plan
    await _apply_settings(ctx, source, target)
    await migrate.listen(target, ram_listen(plan))
    ctx.hold(Outgoing(source.host, source.monitor, places.guest_unit(plan), places.path_handler(plan)))
    with source.listening("MIGRATION") as seen, source.listening("STOP", "SHUTDOWN") as stops:
        await migrate.start(source, ram_connect(plan))
        reporting = asyncio.ensure_future(_report_ram(ctx, source))
        stopped = asyncio.ensure_future(_stopped(source, stops))
        try:
            await _await_status(ctx, source, target, seen, "pre-switchover", RAM_SECONDS, stopped)
        finally:
            reporting.cancel()
            stopped.cancel()
    ctx.clock.mark("stopped")


async def commit(ctx: Context) -> None:
    """The guest is stopped on the source, nothing writes to its disks: let the last of it go over.

    A kill before `completed`: the source says which side owns the guest. A kill after it: the target does, paused.
    """
    source, target, plan = await ctx.source_qemu(), await ctx.target_qemu(), ctx.plan
    await asyncio.gather(_check_quiet(source, target), _check_unchanged(source, plan.disks))
    ctx.enter(State.SWITCHING)
    with source.listening("MIGRATION") as seen:
        await migrate.go_on(source)
        await _await_status(ctx, source, target, seen, "completed", SWITCH_SECONDS)
    if (state := await machine.run_state(target)) != "paused":
        raise EsdError(f"the target's QEMU is {state} after the move, not paused", host=target.host)


async def start_target(ctx: Context) -> None:
    """The guest runs on the target. A kill before `cont` is answered: recovery asks the target, never the source.

    One that runs already, or was stopped by something else since, is left as it is.
    """
    target = await ctx.target_qemu()
    if await machine.run_state(target) in _NOT_STARTED:
        with target.listening("RESUME") as resumed:
            await machine.cont(target)
            await resumed.wait(lambda _: True, SWITCH_SECONDS, "the guest running on the target")
    ctx.measure("downtime", "stopped")
    ctx.measure("resumed-after", "start")


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
    await machine.add_object(source, "tls-creds-psk", id, {"endpoint": "client", "dir": listen.key_dir})
    return id


def ram_listen(plan: Plan) -> str:
    """Where the target's QEMU waits for the stream: one address, never all of them."""
    if plan.transport is Transport.SSH:
        return f"unix:{plan.target.paths.link_run(plan.id)}/ram.sock"
    address = plan.target.address
    return f"tcp:[{address}]:{plan.ram_port}" if ":" in address else f"tcp:{address}:{plan.ram_port}"


def ram_connect(plan: Plan) -> str:
    """Where the source's QEMU sends it."""
    if plan.transport is Transport.SSH:
        return f"unix:{plan.source.paths.link_run(plan.id)}/ram.sock"
    return ram_listen(plan)


async def _report_ram(ctx: Context, source: Session) -> None:
    """RAM progress has no event: it is looked at while somebody waits."""
    while True:
        now = await migrate.progress(source)
        ctx.report(Progress("RAM", now.transferred, now.transferred + now.remaining))
        await asyncio.sleep(PROGRESS_SECONDS)


async def _stopped(source: Session, stops: Events) -> str:
    """Why the guest does not run any more: paused by somebody, stopped by an error, shut down. Not by the switchover.

    It stays so, and on the source: moved, it would run again.
    """
    ended = "its QEMU has died"
    try:
        while True:
            event = await stops.get()
            if event["event"] == "SHUTDOWN":
                ended = "it has shut down" if event["data"]["guest"] else "its QEMU was told to end"
            elif (state := await machine.run_state(source)) not in _ON_ITS_WAY:
                return f"it is {state} since"
    except QemuGoneError:
        return ended


async def _await_status(
    ctx: Context,
    source: Session,
    target: Session,
    seen: Events,
    wanted: str,
    seconds: float,
    *stopped: asyncio.Future[str],
) -> None:
    """Wait for `wanted` on the source, or raise because it failed or `stopped` there, or the target has ended."""
    waiting = asyncio.ensure_future(migrate.wait_status(seen, frozenset({wanted, "failed", "cancelled"}), seconds))
    gone = asyncio.ensure_future(target.closed())
    try:
        ends: set[asyncio.Future[Any]] = {waiting, gone, *stopped}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for why in stopped:
            if why.done():
                raise await _not_running(ctx, source, why.result())
        if not waiting.done() or waiting.result() != wanted:
            raise await _failure(ctx, source)
    finally:
        waiting.cancel()
        gone.cancel()


async def _not_running(ctx: Context, source: Session, why: str) -> EsdError:
    """The stream ends at once: a memory that nobody writes to is soon over, and a guest that was paused is then given
    another state by QEMU, from which it can only run."""
    with suppress(QemuError, QemuGoneError):
        await migrate.cancel(source)
    return EsdError(f"{ctx.plan.vm} did not keep running while it moved: {why}", host=source.host)


async def _failure(ctx: Context, source: Session) -> EsdError:
    """Why the stream ended, in the words of both QEMUs."""
    now = await migrate.progress(source)
    folder = ctx.plan.target.paths.unit(places.guest_unit(ctx.plan).name)
    log = await files.read(await ctx.target(), f"{folder}/log") or b""
    words = [now.error, *log.decode(errors="replace").strip().splitlines()[-2:]]
    said = "; ".join(word for word in words if word) or f"the source says {now.status}"
    return EsdError(f"the guest could not be moved: {said}", host=ctx.plan.target.host)


async def _check_quiet(source: Session, target: Session) -> None:
    """A job that writes while images are given up aborts QEMU; a target that does not wait cannot be switched to."""
    running, state = await asyncio.gather(jobs.running(source), machine.run_state(target))
    if running:
        raise EsdError("a block job has started on the source meanwhile", host=source.host)
    if state != "inmigrate":
        raise EsdError(f"the target's QEMU is {state}, not waiting", host=target.host)


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
