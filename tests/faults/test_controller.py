"""The controller is killed after any record of its journal, and again while it recovers: the guest never notices."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import guests
from qemu_esd.errors import RefusedError
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.journal import shelf, store
from qemu_esd.model.record import State
from tests.faults import report
from tests.faults.hangs import cut_between
from tests.integration.support.commands import Said, end, say, say_and_die, start
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import qemu_facts, running_on, tell
from tests.integration.support.links import slow
from tests.integration.support.machine import Machine
from tests.integration.test_rollback import places
from tests.integration.test_two_controllers import another

pytestmark = pytest.mark.lab

ALL = pytest.mark.skipif(os.environ.get("ESD_FAULTS") != "all", reason="one moment of many; ESD_FAULTS=all")
KILLED = -signal.SIGKILL
DRIVES = (Drive("vda", 7, size=8 * MIB), Drive("vdb", 9, "b.qcow2", size=4 * MIB, chain=1))
# It dirties memory faster than it moves over a link of so many bytes per second.
BUSY, NARROW = "esd.mode=verify,dirty esd.rate=100 esd.dirty=32 esd.dirtyrate=16", 8 * MIB
# All of them by `tasks.py faults`; the ordinary tests take a sample that meets every phase.
STEP = 1 if os.environ.get("ESD_FAULTS") == "all" else 6


@pytest.mark.timeout(1800)
async def test_killed_after_a_record_of_a_migration(fleet: Fleet) -> None:
    """One guest goes through it all, and is under its verifying load all the time."""
    guest = await fleet.boot(*DRIVES)
    record, tried = 1, 0
    while True:
        said = await migrate(guest, fleet, record)
        if said.status != KILLED:
            break
        tried += 1
        record += STEP
    assert said.status == 0, said.err
    assert tried > 20 // STEP
    guest.arrived(other(fleet, guest.machine))
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    await fleet.finish(guest)


async def migrate(guest: Guest, fleet: Fleet, record: int) -> Said:
    """Killed there, and recovered; or come to its end."""
    target, before, inside = other(fleet, guest.machine), places(fleet), await qemu_facts(guest)
    words = ("migrate", guest.name, target.name, "--from", guest.machine.name, "--policy", "on-demand")
    said = await say_and_die(record, *words)
    if said.status != KILLED:
        return said
    story = the_story(guest)
    assert len(await running_on(fleet.machines, guest.name)) <= 1
    await is_told(guest, story)
    if story.state.committed:
        await resumes(guest, story, record, target)
    else:
        # Nobody has done anything yet: what is left over does not disturb it, and what waits there is not to run.
        await guest.is_well()
        async with open_hosts() as hosts:
            with pytest.raises(RefusedError, match=r"must not be told to run|does not run"):
                await guests.cont(hosts, guest.name, target.name)
        await rolls_back(guest, story, record)
        assert places(fleet) == before
        assert await qemu_facts(guest) == inside
    what = " ".join(re.findall(r"[A-Z]\w+", said.err.strip().splitlines()[-1])[:2])
    command = "resume, killed, resume (0)" if story.state.committed else "rollback, killed, rollback (0) or resume (1)"
    report.note(report.Line("SIGKILL controller", f"after record {record}: {what}", "-9", command, guest.machine.name))
    return said


UNWRITTEN = [
    (State.COMMITTED, "resume"),
    (State.COMMITTED, "rollback"),
    (State.RUNNING, "resume"),
    (State.HANDED_OVER, "resume"),
]


@pytest.mark.parametrize(("state", "command"), UNWRITTEN if STEP == 1 else UNWRITTEN[1:3])
async def test_killed_before_a_state_is_written(fleet: Fleet, state: State, command: str) -> None:
    """It is reached, and nobody knows: the answer to `cont` may never have come. The QEMUs are asked, and tell."""
    guest = await fleet.boot(*DRIVES)
    said = await say_and_die(
        f"before:{state}", "migrate", guest.name, "hostB", "--from", "hostA", "--policy", "on-demand"
    )
    assert (said.status, the_story(guest).state is state) == (KILLED, False), said
    ran = await running_on(fleet.machines, guest.name)
    assert ran == ([] if state is State.COMMITTED else ["hostB"])
    told = await say(command, guest.name)
    assert told.status == 0, told
    if command == "resume":
        guest.arrived(fleet.b)
    assert await running_on(fleet.machines, guest.name) == [guest.machine.name]
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    what = f"before {state} is written"
    report.note(report.Line("SIGKILL controller", what, "-9", f"{command} (0)", guest.machine.name))
    await fleet.finish(guest, settle=command == "resume")


async def test_killed_while_memory_moves(fleet: Fleet) -> None:
    """QEMU would stop the guest before the switchover and wait for a word that never comes: the guard takes it back."""
    guest = await fleet.boot(*DRIVES, load=BUSY)
    before, inside = places(fleet), await qemu_facts(guest)
    async with slow("hostA", "hostB", NARROW):
        migration = await moving(guest)
        migration.kill()
        await end(migration)
        await taken_back(guest)
    await is_told(guest, the_story(guest))
    await rolls_back(guest, the_story(guest), 1)
    assert (places(fleet), await qemu_facts(guest)) == (before, inside)
    await fleet.finish(guest, settle=False)


async def test_silent_while_memory_moves(fleet: Fleet) -> None:
    """A controller that hears and says nothing, and is back when the guard has acted: it undoes what it has made."""
    guest = await fleet.boot(*DRIVES, load=BUSY)
    before, inside = places(fleet), await qemu_facts(guest)
    async with slow("hostA", "hostB", NARROW):
        migration = await moving(guest)
        migration.send_signal(signal.SIGSTOP)
        await taken_back(guest)
    await undoes_it(guest, migration)
    assert (places(fleet), await qemu_facts(guest)) == (before, inside)
    await fleet.finish(guest, settle=False)


@ALL
async def test_stopped_at_the_switchover_for_longer_than_the_guard_waits(fleet: Fleet) -> None:
    """The guard gives the guest back to the source; what the controller believes when it wakes up does no harm."""
    guest = await fleet.boot(*DRIVES)
    before, inside = places(fleet), await qemu_facts(guest)
    migration = await asleep(guest, State.SWITCHING)
    await taken_back(guest)
    await undoes_it(guest, migration)
    assert (places(fleet), await qemu_facts(guest)) == (before, inside)
    report.note(report.Line("SIGSTOP controller for 40 s", "stopped", "(1)", "nothing", "hostA"))
    await fleet.finish(guest, settle=False)


@ALL
async def test_killed_at_the_switchover_when_the_link_is_dead(fleet: Fleet) -> None:
    """The source sends the last of its guest into nothing, deaf until TCP gives up; the guard cuts its connection."""
    guest = await fleet.boot(*DRIVES)
    before, inside = places(fleet), await qemu_facts(guest)
    migration = await asleep(guest, State.SWITCHING)
    with ExitStack() as ends:
        ends.callback(cut_between(fleet.a, fleet.b).end)
        migration.send_signal(signal.SIGCONT)
        await given_away(guest)
        migration.kill()
        await end(migration)
        await taken_back(guest)
    await rolls_back(guest, the_story(guest), 1)
    assert (places(fleet), await qemu_facts(guest)) == (before, inside)
    what = "SIGKILL controller, link between the hosts cut for good"
    report.note(report.Line(what, "stopped", "-9", "rollback (0)", "hostA"))
    await fleet.finish(guest, settle=False)


async def given_away(guest: Guest) -> None:
    """Returns when the source has been told to go on from where it has stopped the guest: it says so, or is deaf."""
    async with asyncio.timeout(60):
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(2):
                    if (await tell(guest, "query-migrate"))["status"] == "device":
                        return
                await asyncio.sleep(0.1)


@ALL
async def test_stopped_after_the_commit(fleet: Fleet, tmp_path: Path) -> None:
    """Nobody else goes on meanwhile, on this machine or from another; woken up it brings the guest to the target."""
    guest = await fleet.boot(*DRIVES)
    migration = await asleep(guest, State.COMMITTED)
    assert await running_on(fleet.machines, guest.name) == []
    for words in (("resume", "vm1"), ("rollback", "vm1"), ("migrate", "vm1", "hostC", "--policy", "redirect")):
        refused = await say(*words)
        assert (refused.status, "another qemu-esd works" in refused.err) == (3, True), refused
    with another(tmp_path):
        refused = await say("migrate", "vm1", "hostC", "--from", "hostA", "--policy", "redirect")
    assert refused.status == 3, refused
    told = await say("status", "vm1")
    assert (told.status, "committed" in told.out) == (0, True), told
    migration.send_signal(signal.SIGCONT)
    said = await end(migration)
    assert said.status == 0, said
    guest.arrived(fleet.b)
    await guest.is_well()
    report.note(report.Line("SIGSTOP controller", "committed", "done (0)", "nothing", "hostB"))
    await fleet.finish(guest)


async def asleep(guest: Guest, state: State) -> asyncio.subprocess.Process:
    """A migration whose controller is stopped when it has entered `state`."""
    words = (f"asleep:{state}", "migrate", guest.name, "hostB", "--from", "hostA", "--policy", "on-demand")
    migration = await start(*words, module="tests.faults.mortal")
    async with asyncio.timeout(60):
        while Path(f"/proc/{migration.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert migration.returncode is None
            await asyncio.sleep(0.1)
    return migration


async def moving(guest: Guest) -> asyncio.subprocess.Process:
    """A migration whose memory moves now, and for long."""
    words = ("migrate", guest.name, "hostB", "--from", "hostA", "--policy", "on-demand", "--downtime", "1")
    migration = await start(*words)
    async with asyncio.timeout(60):
        while (await tell(guest, "query-migrate")).get("status") != "active":
            assert migration.returncode is None
            await asyncio.sleep(0.1)
    return migration


async def taken_back(guest: Guest) -> None:
    async with asyncio.timeout(60):
        # Failed: the link's watch, or the target, was faster than the guard.
        while (await tell(guest, "query-migrate"))["status"] not in ("cancelled", "failed"):
            await asyncio.sleep(0.2)
    assert (await tell(guest, "query-status"))["running"]
    await guest.is_well()


async def undoes_it(guest: Guest, migration: asyncio.subprocess.Process) -> None:
    """Woken up again, the controller finds that it has nothing to go on with."""
    migration.send_signal(signal.SIGCONT)
    said = await end(migration)
    assert (said.status, "is on hostA as before" in said.err) == (1, True), said
    await guest.is_well()


def the_story(guest: Guest) -> store.Story:
    story = shelf.newest_of(guest.name)
    assert story is not None
    return story


def other(fleet: Fleet, machine: Machine) -> Machine:
    return fleet.b if machine == fleet.a else fleet.a


async def is_told(guest: Guest, story: store.Story) -> None:
    """`status` says how far it was, and the command to go on."""
    told = await say("status", guest.name)
    if story.is_broken_off:
        assert f"broken off while {story.state}" in told.out, told
        assert f"qemu-esd resume {story.plan.id}" in told.out


async def rolls_back(guest: Guest, story: store.Story, record: int) -> None:
    """Either of the two commands leads back, also after one that was killed half way."""
    died = await say_and_die(1 + record % 9, "rollback", story.plan.id)
    assert died.status in (0, KILLED), died
    if died.status == 0:
        return
    if record % 2:
        told = await say("rollback", story.plan.id)
        assert (told.status, "nothing is left over" in told.out) == (0, True), told
    else:
        told = await say("resume")
        assert told.status == 1, told
        assert "as before" in told.err
    await guest.is_well()


async def resumes(guest: Guest, story: store.Story, record: int, target: Machine) -> None:
    refused = await say("rollback", story.plan.id)
    assert refused.status == 3, refused
    died = await say_and_die(1 + record % 3, "resume", story.plan.id)
    assert died.status in (0, KILLED), died
    told = await say("resume", story.plan.id)
    assert told.status == 0, told
    guest.arrived(target)
    await guest.is_well()
    assert guest.machine.qemus(guest.name)
    for command in ("settle", "release"):
        done = await say(command, guest.name)
        assert done.status == 0, done
