"""Plan: look at both hosts, collect every problem, decide everything. Nothing is touched."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace

from qemu_esd.errors import RefusedError
from qemu_esd.graph import names, nodes
from qemu_esd.graph.handlers import HANDLERS
from qemu_esd.hosts import files
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors import versions
from qemu_esd.hypervisors.cmdline.carried import Carried, DiskSwap, Target
from qemu_esd.hypervisors.cmdline.carry import carry
from qemu_esd.hypervisors.cmdline.reader import read
from qemu_esd.hypervisors.cmdline.sockets import Console, QmpSocket
from qemu_esd.journal.claims import Claims
from qemu_esd.log import step
from qemu_esd.model.disk import Disk, Endpoint, Image, Link, PlainTcp, TlsTcp, UnixPath
from qemu_esd.model.host import HostPaths, guest_sockets
from qemu_esd.model.plan import DiskPlan, Plan, Problem, Site, Transport
from qemu_esd.model.policy import ReadErrors
from qemu_esd.model.request import Request
from qemu_esd.model.vm import Kind
from qemu_esd.phases import checks, domains, look
from qemu_esd.phases.context import Monitors


@dataclass(frozen=True)
class Proposal:
    """A plan with all that stands in its way, and remarks that do not."""

    plan: Plan
    problems: tuple[Problem, ...]
    remarks: tuple[str, ...]


@step
async def propose(hosts: Hosts, monitors: Monitors, request: Request, claims: Claims) -> Proposal:
    """Look, and decide; the ports of the plan are held by `claims`.

    Raises UsageError, RefusedError or HostError when not even that much is possible.
    """
    source_host, target_host = await _open_both(hosts, request)
    source, target = await asyncio.gather(
        look.source(hosts, monitors, request.vm, source_host.name, target_host),
        look.target(hosts, request.vm, request.target, source_host),
    )
    request.check_disks(source.guest.disks)
    domain = None
    if source.guest.kind is Kind.DOMAIN:
        domain = await domains.look(hosts, monitors, source.guest, request)
        request = replace(request, overlay_folder=request.overlay_folder or domains.FOLDER)
    folder = request.overlay_folder or f"{target.facts.paths.state}/disks"
    plan, carried = _decide(request, source, target, claims, domain)
    members = [disk.member for disk in plan.disks]
    free, present, unknown = await asyncio.gather(
        files.free_bytes(target_host, folder),
        files.existing(target_host, checks.inside(folder), *_paths(members, carried)),
        _options_problems(plan, target_host, target.qemu),
    )
    problems = (
        *checks.find_problems(request, source, target, free),
        *checks.missing_folder(request, present),
        *checks.existing_overlays(members, present, request.target),
        *_carry_problems(plan, carried, present),
        *(domains.problems(domain, source.guest, request) if domain else ()),
        *unknown,
    )
    return Proposal(plan, problems, (*carried.remarks, *checks.remarks(source, target.qemu)))


async def _open_both(hosts: Hosts, request: Request) -> tuple[Host, Host]:
    """Source and target, opened side by side: the user waits for the slower one, not for the sum."""
    opening = asyncio.ensure_future(hosts.get(request.target))
    try:
        name = request.source or await look.find_host(hosts, request.vm)
        if name == request.target:
            raise RefusedError(f"{request.vm} is there already", host=request.target, hint="name another host")
        return await hosts.get(name), await opening
    finally:
        # What went wrong first is told, and only when nothing is being opened any more.
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)


def _paths(members: list[Image | None], carried: Carried) -> list[str]:
    return [member.path for member in members if member] + [need.path for need in carried.files]


def _carry_problems(plan: Plan, carried: Carried, present: frozenset[str]) -> Iterator[Problem]:
    for text in carried.problems:
        yield Problem(plan.source.host, text, "detach it from the guest, then migrate")
    ours = {plan.target.paths.vm_run(plan.vm), plan.target.paths.vm_state(plan.vm)}
    for need in carried.files:
        if need.path not in present and need.path not in ours:
            what = f"the {need.kind} {need.path} ({need.option}) is not there"
            yield Problem(plan.target.host, what, f"copy it there from {plan.source.host}")


async def _options_problems(plan: Plan, host: Host, qemu: versions.Program | None) -> tuple[Problem, ...]:
    """An option that came or went between the source's version and the target's: QEMU would not even start."""
    known = qemu is None or not plan.target_argv
    option = None if known else await versions.unknown_option(host, plan.target_argv)
    if option is None:
        return ()
    what = f"its QEMU does not know the option {option}"
    return (Problem(host.name, what, f"start {plan.vm} without it, or see what has come in its place"),)


def _decide(
    request: Request,
    source: look.SourceView,
    target: look.TargetView,
    claims: Claims,
    domain: domains.DomainView | None,
) -> tuple[Plan, Carried]:
    id = secrets.token_hex(4)
    here = Site(source.guest.host, source.facts.paths, source.address)
    there = Site(request.target, target.facts.paths, target.address)
    nbd_port = _free_port(request.ports, source.ports_in_use, here.host, claims)
    ram_port = _free_port(request.ports, target.ports_in_use, there.host, claims)
    generation = source.guest.generation + 1
    endpoint = _endpoint(request.transport, here, there, nbd_port, id)
    disks = tuple(_disk_plan(request, disk, endpoint, there.paths, generation) for disk in source.guest.disks)
    carried = domains.carried(domain) if domain else _carry(request, source, there, disks, generation, id)
    plan = Plan(
        id, source.guest, here, there, request.transport, nbd_port, ram_port, generation, disks, carried.argv,
        request.bandwidth, request.downtime_ms, domain.target if domain else None,
    )  # fmt: skip
    return plan, carried


def _free_port(ports: range, used: frozenset[int], host: str, claims: Claims) -> int:
    for port in ports:
        if port not in used and claims.take(host, port):
            return port
    raise RefusedError(
        f"no port of {ports.start}-{ports.stop - 1} is free", host=host, hint="name others with --ports FIRST-LAST"
    )


def _endpoint(transport: Transport, here: Site, there: Site, port: int, id: str) -> Endpoint:
    """The source's path handler as the target reaches it."""
    match transport:
        case Transport.TLS:
            return TlsTcp(here.address, port, there.paths.link_state(id))
        case Transport.PLAINTEXT:
            return PlainTcp(here.address, port)
        case Transport.SSH:
            return UnixPath(f"{there.paths.link_run(id)}/nbd.sock")


def _disk_plan(request: Request, disk: Disk, endpoint: Endpoint, paths: HostPaths, generation: int) -> DiskPlan:
    # 128 random bits bind the name to this image and this migration: a reconnect can never find another one.
    export = f"esd-{secrets.token_hex(16)}"
    member = None
    if request.local_space:
        path = paths.overlay(request.vm, disk.suid, generation, request.overlay_folder)
        top = disk.chain[0]
        member = Image(path, "qcow2", direct=isinstance(top, Image) and top.direct)
    return DiskPlan(disk, request.handler_of(disk), export, Link(endpoint, export), member)


def _carry(
    request: Request, source: look.SourceView, there: Site, disks: tuple[DiskPlan, ...], generation: int, id: str
) -> Carried:
    """The target's command line."""
    sockets = guest_sockets(there.paths, request.vm)
    monitors = tuple(
        QmpSocket(f"esd-{name}", path)
        for name, path in (("control", sockets.control), ("observe", sockets.observe), ("user", sockets.user))
    )
    console = Console("esd-console", sockets.console, there.paths.console_log(request.vm, generation))
    credentials = _credentials(disks)
    wanted = Target(source.guest.machine_type, monitors, console, extra=credentials)
    swaps = [_swap(disk, source, request.read_errors) for disk in disks]
    return carry(read(source.guest.process.argv), swaps, wanted)


def _credentials(disks: tuple[DiskPlan, ...]) -> tuple[str, ...]:
    """Keys for the links (client) and for the RAM stream (server). One folder, two roles, two objects."""
    tls = next((disk.link.endpoint for disk in disks if isinstance(disk.link.endpoint, TlsTcp)), None)
    if tls is None:
        return ()
    client, server = nodes.tls_object(tls, "client"), nodes.tls_object(tls, "server")
    assert client is not None and server is not None
    server["id"] = names.incoming_credentials(nodes.migration_of(tls))
    return ("-object", json.dumps(client), "-object", json.dumps(server))


def _swap(disk: DiskPlan, source: look.SourceView, read_errors: ReadErrors) -> DiskSwap:
    handler, suid = HANDLERS[disk.handler], disk.disk.suid
    if disk.member is None:
        return DiskSwap(
            disk.disk.drive,
            nodes.remote_only(suid, disk.link),
            names.served(suid),
            rerror=read_errors,
            werror="stop",
            place=source.places.get(disk.disk.id),
        )
    return DiskSwap(
        disk.disk.drive,
        handler.nodes_of(suid, disk.member, disk.link, disk.disk.size),
        handler.top(suid),
        rerror=handler.READ_ERRORS or read_errors,
        werror="stop",
        place=source.places.get(disk.disk.id),
    )
