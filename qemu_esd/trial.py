"""`migrate --dry-run`: the plan, the checks of `doctor` for its two hosts, and a forecast. Touches nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qemu_esd import doctor
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hosts.wire import Wire
from qemu_esd.journal import shelf
from qemu_esd.model.finding import Finding, Level
from qemu_esd.model.plan import Problem, Transport
from qemu_esd.model.request import Request
from qemu_esd.phases.forecast import Forecast, forecast
from qemu_esd.phases.plan import Proposal

# Of TLS, space, machine and the like the plan knows better what this guest needs.
_FOR_EVERY_GUEST = ("ssh", "drivers", "state", "link")


@dataclass(frozen=True)
class Trial:
    """A plan; what is not good of its hosts and the way between them; a forecast, if the plan has no problem."""

    proposal: Proposal
    findings: tuple[Finding, ...] = ()
    forecast: Forecast | None = None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What would have it refused, or fail: by the plan, and by what of its hosts concerns every guest."""
        return (*self.proposal.problems, *for_every_guest(self.findings))


def for_every_guest(findings: Iterable[Finding]) -> tuple[Problem, ...]:
    """Those of the findings that would have any migration refused, or fail."""
    found = (one for one in findings if one.level is Level.PROBLEM and one.check in _FOR_EVERY_GUEST)
    return tuple(Problem(one.host, one.what, one.hint) for one in found)


@dataclass(frozen=True)
class Ends:
    """What is not good of two hosts and the way between them; how good that is from source to target, if measured."""

    findings: tuple[Finding, ...]
    wire: Wire | None


async def look_at_ends(hosts: Hosts, source: str, target: str, transport: Transport, ports: range) -> Ends:
    """What concerns every guest that goes from one to the other."""
    looked = await doctor.look_at_hosts(hosts, (source, target), ports)
    # Where all goes through ssh no port may be open.
    measured = transport is not Transport.SSH
    ways = await doctor.measure_ways(hosts, looked.views if measured else (), ports)
    found = tuple(one for one in looked.findings + ways.findings if one.level is not Level.GOOD)
    return Ends(found, ways.wires.get((source, target)))


async def try_out(hosts: Hosts, request: Request, proposal: Proposal) -> Trial:
    """What is to be told of a proposal."""
    if proposal.problems:
        return Trial(proposal)
    source, target = proposal.plan.source.host, proposal.plan.target.host
    ends = await look_at_ends(hosts, source, target, request.transport, request.ports)
    return Trial(proposal, ends.findings, forecast(proposal.plan, ends.wire, shelf.figures("downtime")))
