"""The controller is lost, with its journal: another one recognises what it has left, and brings it to an end."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import api
from tests.faults import report
from tests.faults.test_controller import KILLED, other
from tests.integration.support.commands import say, say_and_die
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import running_on
from tests.integration.support.machine import Machine
from tests.integration.test_rollback import places
from tests.integration.test_two_controllers import another

pytestmark = pytest.mark.lab

ALL = os.environ.get("ESD_FAULTS") == "all"
DRIVES = (Drive("vda", 7, size=8 * MIB), Drive("vdb", 9, "b.qcow2", size=4 * MIB, chain=1))
FIRST, STEP = (2, 2) if ALL else (8, 16)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("transport", ["tls", "ssh"] if ALL else ["tls"])
async def test_another_controller_brings_it_to_an_end(fleet: Fleet, tmp_path: Path, transport: str) -> None:
    guest = await (fleet.boot(*DRIVES) if ALL else fleet.idle(*DRIVES))
    record, went = FIRST, set[str]()
    while True:
        target, before = other(fleet, guest.machine), places(fleet)
        words = ("migrate", "vm1", target.name, "--from", guest.machine.name, "--policy", "on-demand")
        died = await say_and_die(record, *words, "--transport", transport)
        if died.status != KILLED:
            break
        assert len(await running_on(fleet.machines, "vm1")) <= 1
        with another(tmp_path / str(record)):
            outcome = await ends(fleet, guest, before)
        went.add(outcome)
        what = " ".join(re.findall(r"[A-Z]\w+", died.err.strip().splitlines()[-1])[:2])
        report.note(report.Line("controller lost", f"after record {record}: {what}", "-9", outcome, guest.machine.name))
        record += STEP
    assert (died.status, went - {"nothing"}) == (0, {"rollback --host (0)", "resume --host (0)"}), (died, went)
    guest.arrived(other(fleet, guest.machine))
    if ALL:
        await guest.is_well()
    await fleet.finish(guest)


async def ends(fleet: Fleet, guest: Guest, before: list[set[str]]) -> str:
    """Told, not moved again, and undone if that is safe; else gone on with."""
    source = guest.machine.name
    told = await say("status", "vm1")
    if "handed over, from" in told.out and "not come to its end" not in told.out:
        return await arrives(guest, other(fleet, guest.machine), "nothing")
    if "never moved" in told.out and "not come to its end" not in told.out:
        return await hardly_begun(fleet, guest, before)
    assert ("has not come to its end" in told.out, "qemu-esd resume" in told.out) == (True, True), told
    where = await running_on(fleet.machines, "vm1")
    for host in where:
        again = await say("migrate", "vm1", "hostC", "--from", host, "--policy", "redirect")
        # Where there is no record of it yet, it is a guest that nobody could move anyway.
        assert (again.status, host == source and "not come to its end" not in again.err) == (3, False), again
    back = await say("rollback", "vm1", "--host", source) if where in ([], [source]) else None
    if back is not None and back.status == 0:
        assert await running_on(fleet.machines, "vm1") == [source]
        assert places(fleet) == before
        if ALL:
            await guest.is_well()
        return "rollback --host (0)"
    assert where != [source], back
    on = await say("resume", "vm1", "--host", source)
    assert on.status == 0, on
    target = other(fleet, guest.machine)
    assert await running_on(fleet.machines, "vm1") == [target.name]
    return await arrives(guest, target, "resume --host (0)")


async def hardly_begun(fleet: Fleet, guest: Guest, before: list[set[str]]) -> str:
    """Nothing is on the source's host yet, and on the target's hardly anything."""
    swept = await say("rollback", "vm1", "--host", other(fleet, guest.machine).name)
    assert swept.status in (0, 3), swept
    assert places(fleet) == before
    if ALL:
        await guest.is_well()
    return "nothing" if swept.status else "rollback --host (0)"


async def arrives(guest: Guest, target: Machine, outcome: str) -> str:
    guest.arrived(target)
    if ALL:
        await guest.is_well()
    await api.settle_guest("vm1", target.name, lambda *_: None)
    await api.release_guest("vm1", target.name)
    return outcome
