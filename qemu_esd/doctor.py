"""Look at hosts, and at the ways between them, for what would stand in the way of a migration. Nothing is touched."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qemu_esd.errors import EsdError, TimedOutError, UsageError
from qemu_esd.hosts import accel, facts, service, survey, wire
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors import equipment, versions
from qemu_esd.journal import shelf, store
from qemu_esd.model import device
from qemu_esd.model.finding import Finding
from qemu_esd.model.request import DEFAULT_PORTS
from qemu_esd.phases import device_records, health, look, notice, places
from qemu_esd.phases.health import HostView

# A probe of KVM that has to be killed takes five.
HOST_SECONDS = 60.0


@dataclass(frozen=True)
class Looked:
    """What was found on hosts, and between them without sending anything; `views` are those that could be looked at."""

    findings: tuple[Finding, ...]
    views: tuple[HostView, ...]


@dataclass(frozen=True)
class Ways:
    """What was found of the ways between hosts, and those that were measured, by sender and receiver."""

    findings: tuple[Finding, ...]
    wires: Mapping[tuple[str, str], wire.Wire]


async def examine(hosts: Hosts, names: Sequence[str], ports: range = DEFAULT_PORTS) -> tuple[Finding, ...]:
    """All of it: of this controller, of hosts, of pairs of them, of the ways between them."""
    here = tuple(health.of_controller(store.home(), shelf.unfinished(), shelf.read_all().damaged))
    looked = await look_at_hosts(hosts, names, ports)
    return here + looked.findings + (await measure_ways(hosts, looked.views, ports)).findings


async def look_at_hosts(hosts: Hosts, names: Sequence[str], ports: range) -> Looked:
    """Each host, side by side, and what each two have in common."""
    seen = await asyncio.gather(*(_host(hosts, name) for name in dict.fromkeys(names)))
    findings = [finding for one in seen for finding in _told(one, ports)]
    views = tuple(one for one in seen if isinstance(one, HostView))
    findings += [finding for a, b in itertools.combinations(views, 2) for finding in health.of_pair(a, b)]
    return Looked(tuple(findings), views)


async def measure_ways(hosts: Hosts, views: Sequence[HostView], ports: range) -> Ways:
    """Both ways of each pair, one after another, for they may share a link: about a second each."""
    findings, wires = list[Finding](), dict[tuple[str, str], wire.Wire]()
    for sender, receiver in itertools.permutations(views, 2):
        port = next((port for port in ports if port not in sender.ports_in_use), ports.start)
        told = await _measure(hosts, sender.name, receiver.name, port)
        findings.append(health.of_way(sender.name, receiver.name, port, told))
        if isinstance(told, wire.Wire):
            wires[sender.name, receiver.name] = told
    return Ways(tuple(findings), wires)


def _told(seen: HostView | Finding, ports: range) -> list[Finding]:
    return [seen] if isinstance(seen, Finding) else list(health.of_host(seen, ports))


async def _host(hosts: Hosts, name: str) -> HostView | Finding:
    """What was seen, or why nothing was."""
    try:
        async with asyncio.timeout(HOST_SECONDS):
            return await _look(await hosts.get(name))
    except TimeoutError:
        return health.unreachable(name, TimedOutError("an answer", HOST_SECONDS, host=name))
    except UsageError:
        raise
    except EsdError as error:
        return health.unreachable(name, error)


async def _look(host: Host) -> HostView:
    here = await facts.look(host)
    ground, ports, begun, devices = await asyncio.gather(
        survey.look(host, here.paths),
        _ports(host, here),
        notice.read_all(host, here.paths),
        device_records.all_on(host),
    )
    # What a process of ours here works on is no leftover.
    begun = tuple(one for one in begun if not store.at_work(one.plan.id))
    ended = await _ended(host, here, ground.units)
    view = HostView(host.name, here, ground, ports, ended=ended, begun=begun, devices=devices)
    if not {versions.BINARY, equipment.DAEMON, "timeout"} <= here.programs:
        return view
    works, qemu = await asyncio.gather(accel.works(host, here.paths), versions.program(host))
    return replace(view, accel=works, qemu=qemu, equipment=await equipment.look(host, works))


async def _ports(host: Host, here: facts.HostFacts) -> frozenset[int]:
    return await facts.ports_in_use(host) if "ss" in here.programs else frozenset()


async def _ended(host: Host, here: facts.HostFacts, units: Sequence[str]) -> tuple[str, ...]:
    """The units of links and devices that do not run. A guest that has ended was perhaps shut down:
    `status` tells of it."""
    links = [unit for unit in units if unit.partition("-")[0] in (*places.LINK_UNITS, *device.UNITS)]
    states = await asyncio.gather(*(service.state(host, here.paths.unit(unit), unit) for unit in links))
    return tuple(unit for unit, state in zip(links, states, strict=True) if state == "ended")


async def _measure(hosts: Hosts, sender_name: str, receiver_name: str, port: int) -> wire.Wire | wire.Closed:
    """The way from one host to another, by the address that a migration would use."""
    sender, receiver = await hosts.get(sender_name), await hosts.get(receiver_name)
    try:
        return await wire.measure(sender, await look.address_towards(sender, receiver), port, receiver)
    except EsdError as error:
        return wire.Closed(error.what)
