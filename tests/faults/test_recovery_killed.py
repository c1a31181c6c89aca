"""What brings a broken migration to its end is killed between any two of its acts, and given again until it ends."""

from __future__ import annotations

import signal
from itertools import count

import pytest

from qemu_esd.model.record import State
from tests.faults import report
from tests.faults.rows import marked_guest, marks
from tests.integration.support.commands import say_and_die
from tests.integration.support.fleet import Fleet
from tests.integration.support.inside import running_on

pytestmark = [pytest.mark.lab, report.thorough]

KILLED = -signal.SIGKILL
ENDS = [
    (State.SWITCHING, "rollback", "hostA"),
    (State.COMMITTED, "rollback", "hostA"),
    (State.COMMITTED, "resume", "hostB"),
    (State.RUNNING, "resume", "hostB"),
    (State.HANDED_OVER, "resume", "hostB"),
]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("state", "command", "runs_on"), ENDS)
async def test_killed_between_any_two_of_its_acts(fleet: Fleet, state: State, command: str, runs_on: str) -> None:
    guest, before = await marked_guest(fleet)
    words = ("migrate", "vm1", "hostB", "--from", "hostA", "--policy", "on-demand")
    assert (await say_and_die(f"before:{state}", *words)).status == KILLED
    for number in count(1):
        told = await say_and_die(f"command:{number}", command, "vm1")
        assert len(await running_on(fleet.machines, "vm1")) <= 1
        if told.status != KILLED:
            break
    assert told.status == 0, told
    if runs_on == "hostB":
        guest.arrived(fleet.b)
    assert await running_on(fleet.machines, "vm1") == [runs_on]
    assert await marks(guest) == before
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    what = f"before {state} is written; {command} killed between any two of its {number} commands"
    report.note(report.Line("SIGKILL controller", what, "-9", f"{command} (0)", runs_on))
    await fleet.finish(guest)
