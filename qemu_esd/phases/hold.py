"""Undo: one match that makes any held thing be gone. Gone already is success, so everything can be released twice."""

from __future__ import annotations

import shlex
from collections.abc import Collection

from qemu_esd.errors import DomainBusyError, EsdError, QemuError, QemuGoneError
from qemu_esd.hosts import files, service, ssh_keys
from qemu_esd.hypervisors import processes
from qemu_esd.hypervisors.libvirt import acts
from qemu_esd.log import logger
from qemu_esd.model.host import HostPaths
from qemu_esd.model.record import Released
from qemu_esd.model.resource import (
    AuthorizedKey,
    Export,
    File,
    Folder,
    IncomingDomain,
    MigrationSettings,
    NbdServer,
    Outgoing,
    OutgoingDomain,
    QemuObject,
    Resource,
    Room,
    Unit,
)
from qemu_esd.phases.context import Context
from qemu_esd.qmp import exports, machine, migrate
from qemu_esd.qmp.session import Session

# QEMU ends a stream that never got a connection when TCP gives up to ask for one, two minutes after it began.
CANCEL_SECONDS = 150.0
_ENDED = frozenset({"none", "cancelled", "failed", "completed"})


class _GivenAwayError(EsdError):
    """The source has just given the guest away, to a target that cannot be asked: it may need all that is held."""


async def roll_back(ctx: Context, lost: Collection[str] = ()) -> tuple[EsdError, ...]:
    """Release everything that is held, the newest first; returns what went wrong on the way.

    What could not be released stays held in the journal, and so does all on the hosts in `lost`, which are not asked.
    """
    failures: list[EsdError] = []
    for resource in reversed(ctx.journal.story.held):
        if resource.host in lost and not isinstance(resource, Outgoing | OutgoingDomain):
            continue
        try:
            await release(ctx, resource, lost)
            ctx.journal.append(Released(resource))
        except EsdError as error:
            logger.warning("could not be undone", resource=resource, error=str(error))
            failures.append(error)
            if isinstance(error, _GivenAwayError):
                break
    return tuple(failures)


async def release(ctx: Context, resource: Resource, lost: Collection[str] = ()) -> None:
    logger.debug("release", resource=resource)
    match resource:
        case Folder(host, path):
            await files.remove_tree(await ctx.hosts.get(host), path)
        case Room(host, path):
            await files.remove_if_empty(await ctx.hosts.get(host), path)
        case File(host, path):
            await files.remove(await ctx.hosts.get(host), path)
        case Unit():
            await stop_unit(ctx, resource)
        case AuthorizedKey(host, comment):
            await ssh_keys.withdraw(await ctx.hosts.get(host), comment)
        case Outgoing():
            await _undo_outgoing(ctx, resource, lost)
        case IncomingDomain():
            await _end_domain(ctx, resource)
        case OutgoingDomain():
            await _undo_domain(ctx, resource, lost)
        case NbdServer() | Export() | QemuObject() | MigrationSettings():
            await _release_in_qemu(ctx, resource)


async def stop_unit(ctx: Context, unit: Unit) -> None:
    paths = _paths(ctx, unit.host)
    await service.stop(await ctx.hosts.get(unit.host), paths.unit(unit.name), unit.name)


def _paths(ctx: Context, host: str) -> HostPaths:
    site = ctx.plan.source if host == ctx.plan.source.host else ctx.plan.target
    return site.paths


async def _release_in_qemu(ctx: Context, resource: NbdServer | Export | QemuObject | MigrationSettings) -> None:
    """What lives in a QEMU is gone when that QEMU is gone."""
    try:
        session = await ctx.monitors.get(resource.host, resource.monitor, ctx.plan.vm)
        await _release_by(session, resource)
    except QemuGoneError:
        logger.info("already gone with its QEMU", resource=resource)


async def _release_by(session: Session, resource: NbdServer | Export | QemuObject | MigrationSettings) -> None:
    match resource:
        case NbdServer():
            await exports.stop_serving(session)
        case Export(id=id):
            if id in await exports.ids(session):
                await exports.delete(session, id)
        case QemuObject(id=id):
            if id in await machine.objects(session):
                await machine.delete_object(session, id)
        case MigrationSettings():
            await migrate.set_capabilities(session, dict(resource.capabilities))
            await migrate.set_parameters(
                session,
                migrate.Parameters(
                    resource.tls_creds, resource.tls_hostname, resource.max_bandwidth, resource.downtime_limit
                ),
            )


async def _undo_outgoing(ctx: Context, outgoing: Outgoing, lost: Collection[str]) -> None:
    """The target first, so that two copies can never run; then the fence; then the source goes on.

    With a target that cannot be reached the stream is ended all the same: at its end the guest would be stopped.
    """
    unreached = None if outgoing.target.host in lost else await _try_to_stop(ctx, outgoing.target)
    if outgoing.host not in lost:
        try:
            session = await ctx.monitors.get(outgoing.host, outgoing.monitor, ctx.plan.vm)
            await _cancel(session)
            if await machine.run_state_at_rest(session) == "postmigrate":
                if unreached is not None:
                    raise _GivenAwayError(str(unreached), host=outgoing.host)
                # Also one that was paused in the last instant before the switchover: QEMU cannot go back to `paused`.
                await stop_unit(ctx, outgoing.path_handler)
                await machine.cont(session)
        except QemuGoneError:
            logger.warning("the source QEMU is gone", host=outgoing.host)
    if unreached is not None:
        raise unreached


async def _undo_domain(ctx: Context, outgoing: OutgoingDomain, lost: Collection[str]) -> None:
    """The same for a domain, by its libvirts. The move itself they undo alone, when nobody leads it any more."""
    unreached = None if outgoing.target.host in lost else await _try_to_end(ctx, outgoing.target)
    if outgoing.host not in lost:
        libvirt = await ctx.monitors.libvirt(outgoing.host)
        try:
            session = await ctx.source_qemu()
            if (await migrate.progress(session)).status not in _ENDED:
                await acts.abort(libvirt, outgoing.vm)
            if await machine.run_state_at_rest(session) == "postmigrate":
                if unreached is not None:
                    raise _GivenAwayError(str(unreached), host=outgoing.host)
                await stop_unit(ctx, outgoing.path_handler)
                await acts.resume(libvirt, outgoing.vm)
        except QemuGoneError:
            logger.warning("the source QEMU is gone", host=outgoing.host)
    if unreached is not None:
        raise unreached


async def _try_to_end(ctx: Context, incoming: IncomingDomain) -> EsdError | None:
    """What keeps a domain from being ended, if anything."""
    try:
        await _end_domain(ctx, incoming)
    except EsdError as error:
        return error
    return None


async def _end_domain(ctx: Context, incoming: IncomingDomain) -> None:
    """libvirtd notes that it starts a QEMU before it does. Killed between the two it believes, started again, that this
    goes on, and lets nobody end the domain (9.0; the code of 11.3 is the same)."""
    try:
        await acts.end(await ctx.monitors.libvirt(incoming.host), incoming.uuid)
    except DomainBusyError as error:
        if await processes.find(await ctx.hosts.get(incoming.host), incoming.vm) is not None:
            raise
        what = (
            f"its libvirt was killed while it was about to start {incoming.vm}, and waits for that, which never comes"
        )
        note = shlex.quote(f"/run/libvirt/qemu/{incoming.vm}.xml")
        hint = f"on it: rm {note}, then start its libvirtd (or virtqemud) again"
        raise EsdError(what, host=incoming.host, hint=hint) from error


async def _try_to_stop(ctx: Context, unit: Unit) -> EsdError | None:
    """What keeps a unit from being ended, if anything."""
    try:
        await stop_unit(ctx, unit)
    except EsdError as error:
        return error
    return None


async def _cancel(session: Session) -> None:
    """End an outgoing stream and wait until QEMU has ended it; none running is fine."""
    with session.listening("MIGRATION") as events:
        if (await migrate.progress(session)).status in _ENDED:
            return
        try:
            await migrate.cancel(session)
        except QemuError as error:
            logger.info("migrate_cancel was refused", reason=error.reason)
        await migrate.wait_status(events, _ENDED, CANCEL_SECONDS)
