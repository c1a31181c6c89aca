"""`migrate --dry-run`: the plan, the checks of `doctor` for its two hosts, and a forecast. Touches nothing."""

from __future__ import annotations

from dataclasses import dataclass

from qemu_esd import doctor
from qemu_esd.hosts.connect import Hosts
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
        found = (one for one in self.findings if one.level is Level.PROBLEM and one.check in _FOR_EVERY_GUEST)
        return (*self.proposal.problems, *(Problem(one.host, one.what, one.hint) for one in found))


async def try_out(hosts: Hosts, request: Request, proposal: Proposal) -> Trial:
    """What is to be told of a proposal."""
    if proposal.problems:
        return Trial(proposal)
    ends = (proposal.plan.source.host, proposal.plan.target.host)
    looked = await doctor.look_at_hosts(hosts, ends, request.ports)
    # Where all goes through ssh no port may be open.
    measured = request.transport is not Transport.SSH
    ways = await doctor.measure_ways(hosts, looked.views if measured else (), request.ports)
    found = tuple(one for one in looked.findings + ways.findings if one.level is not Level.GOOD)
    return Trial(proposal, found, forecast(proposal.plan, ways.wires.get(ends), shelf.figures("downtime")))
