"""A migration that another controller has begun, and cannot go on with: a journal of it is made here, from its notice.

The notice has the plan, and all that a migration makes has its place by the plan. How far it came is seen on the hosts;
where that leaves a doubt, it is refused.
"""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Collection

from qemu_esd.errors import RefusedError
from qemu_esd.graph import names
from qemu_esd.hosts import facts, service, ssh_keys
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors import records
from qemu_esd.journal import store
from qemu_esd.model.plan import Plan, Transport
from qemu_esd.model.record import Begun, Entered, Held, State
from qemu_esd.model.recovery import Target, Wish, adopted
from qemu_esd.model.resource import (
    AuthorizedKey,
    Export,
    File,
    Folder,
    IncomingDomain,
    NbdServer,
    Outgoing,
    OutgoingDomain,
    QemuObject,
    Resource,
    Room,
)
from qemu_esd.phases import notice, places
from qemu_esd.phases.context import Context, Monitors
from qemu_esd.phases.observe import observe


async def adopt(
    hosts: Hosts, monitors: Monitors, host_name: str, word: str, wish: Wish, lost: Collection[str]
) -> store.Story:
    """The story of it, with a journal here. Raises RefusedError: there is none on that host, or it is not clear."""
    begun = await _find(hosts, host_name, word)
    plan = begun.plan
    if store.path_of(plan.id).exists():
        return store.read(plan.id)
    with store.adopt(plan) as journal:
        ctx = Context(plan, hosts, monitors, journal, lambda _: None)
        journal.append(Entered(await _state(ctx, begun, wish, lost)))
        if not journal.story.state.committed:
            for resource in [one async for one in _held(ctx)]:
                journal.append(Held(resource))
        return journal.story


async def _find(hosts: Hosts, host_name: str, word: str) -> Begun:
    host = await hosts.get(host_name)
    found = await notice.read(host, (await facts.look(host)).paths, word)
    if len(found) == 1:
        return found[0]
    if not found:
        what = f"no migration {word}, and none of a guest {word}, is under way there or was broken off"
        raise RefusedError(what, host=host_name, hint="see: qemu-esd status")
    raise RefusedError(f"there are several: {', '.join(each.plan.id for each in found)}", hint="name one of them")


async def _state(ctx: Context, begun: Begun, wish: Wish, lost: Collection[str]) -> State:
    plan, seen = ctx.plan, await observe(ctx, lost)
    arrived = False
    if plan.target.host not in lost:
        record = await records.guest(await ctx.target(), plan.target.paths, plan.vm)
        arrived = record is not None and record.migration == plan.id
    state = adopted(seen, wish, arrived=arrived)
    if state is None:
        told = f"the QEMU on {plan.target.host} is {seen.target}"
        what = f"nobody can tell from here whether migration {plan.id} was committed: {told}"
        hint = f"its journal can: on {begun.controller}, qemu-esd status {shlex.quote(plan.vm)}"
        if seen.target is Target.LOADED:
            hint = f"to go on with it: qemu-esd resume {plan.id} --host {plan.source.host}"
        raise RefusedError(what, hint=hint)
    return state


async def _held(ctx: Context) -> AsyncIterator[Resource]:
    """All that it may have made, in that order. What is not there counts as released.

    Settings of the source's QEMU are not among it: nobody here knows what they were.
    """
    plan, source, target = ctx.plan, ctx.plan.source, ctx.plan.target
    for site in (source, target):
        yield Folder(site.host, site.paths.link_state(plan.id))
        yield Folder(site.host, site.paths.link_run(plan.id))
    # Somebody else's server must not be stopped.
    if not plan.guest.upstream and await service.listens(await ctx.source(), places.source_socket(plan)):
        yield NbdServer(source.host, plan.guest.monitor)
    for disk in plan.disks:
        yield Export(source.host, plan.guest.monitor, names.export_id(disk.disk.suid, "src"))
    yield places.path_handler(plan)
    yield Room(target.host, target.paths.vm_state(plan.vm))
    yield Folder(target.host, target.paths.vm_run(plan.vm))
    for member in (disk.member for disk in plan.disks):
        if member is not None:
            yield File(target.host, member.path)
    if plan.transport is Transport.SSH:
        yield AuthorizedKey(source.host, ssh_keys.comment_of(plan.id))
        yield places.tunnel(plan)
    yield places.watch(plan)
    yield File(target.host, target.paths.console_log(plan.vm, plan.generation))
    yield places.guest_unit(plan)
    for resource in _of_a_domain(plan) if plan.domain else _in_the_source(plan):
        yield resource


def _of_a_domain(plan: Plan) -> tuple[Resource, ...]:
    coming = IncomingDomain(plan.target.host, plan.vm, plan.guest.uuid)
    rooms = (Folder(site.host, site.paths.guest_run(plan.id)) for site in (plan.source, plan.target))
    going = OutgoingDomain(plan.source.host, plan.vm, coming.uuid, coming, places.path_handler(plan))
    return (*rooms, places.relay(plan), coming, going)


def _in_the_source(plan: Plan) -> tuple[Resource, ...]:
    key = QemuObject(plan.source.host, plan.guest.monitor, places.credentials(plan))
    stream = Outgoing(plan.source.host, plan.guest.monitor, places.guest_unit(plan), places.path_handler(plan))
    return (key, stream)
