"""What `--dry-run` does: it tells, and touches nothing on either host."""

from __future__ import annotations

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.model.policy import Handler
from qemu_esd.model.request import Request
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.inside import qemu_facts

pytestmark = pytest.mark.lab


async def test_it_touches_nothing(fleet: Fleet) -> None:
    guest = await fleet.idle(Drive("vda", 7, size=8 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1))
    before, inside = fleet.snapshot(), await qemu_facts(guest)
    request = Request("vm1", "hostB", Handler.BACKGROUND, source="hostA", disk_handlers={"vdb": Handler.MISS})

    proposal = await api.propose(request)

    assert proposal.problems == ()
    assert [(disk.disk.id, disk.handler) for disk in proposal.plan.disks] == [
        ("vda", Handler.BACKGROUND),
        ("vdb", Handler.MISS),
    ]
    await fleet.unchanged(before)
    assert await qemu_facts(guest) == inside


async def test_it_tells_of_every_problem_at_once(fleet: Fleet) -> None:
    guest = await fleet.idle(Drive("vda", 7, size=8 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB))
    for drive in guest.drives:
        member = fleet.b.path(f"/var/lib/qemu-esd/disks/vm1.{guest.suid(drive)}.g1.qcow2")
        member.parent.mkdir(exist_ok=True)
        member.write_bytes(b"somebody else's")
    fleet.a.path(guest.drives[0].path).unlink()
    proposal = await api.propose(Request("vm1", "hostB", Handler.REDIRECT, source="hostA", local_space=True))
    assert [(problem.host, problem.what.split()[1]) for problem in proposal.problems] == [
        ("hostA", "image"),
        ("hostB", "file"),
        ("hostB", "file"),
    ]
    assert all(problem.hint for problem in proposal.problems)
