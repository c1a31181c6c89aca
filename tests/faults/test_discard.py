"""`rollback --discard-target`: the target is dead, and the guest is brought back as it was at the switchover."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from itertools import count

import pytest

from images.pattern import MIB
from qemu_esd.hosts import lab
from qemu_esd.journal import shelf, store
from qemu_esd.model.policy import Handler
from tests.faults import report
from tests.integration.support.commands import say, say_and_die
from tests.integration.support.console import Console
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.machine import Machine, ended, kill

pytestmark = pytest.mark.lab

KILLED = -signal.SIGKILL
VDA, VDB = Drive("vda", 7, size=16 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1)
DISCARD = ("rollback", "--discard-target", "vm1")
ALL = os.environ.get("ESD_FAULTS") == "all"


async def written(guest: Guest, at: int) -> list[tuple[int, str]]:
    """Stamps, flushed; returns what is on the disks then."""
    for drive in guest.drives:
        assert await guest.write(drive, at, 256 << 10) == 0
    await guest.sync()
    return await content(guest)


async def content(guest: Guest) -> list[tuple[int, str]]:
    """What it reads: (errno, checksum). After a boot the load does not know any more what it had written."""
    lines = [await guest.ask(f"read {drive.id} 0 {drive.size}") for drive in guest.drives]
    return [(line.number("errno"), line.values["crc"]) for line in lines]


async def moved_and_written(fleet: Fleet, handler: Handler = Handler.ON_DEMAND) -> tuple[Guest, list[tuple[int, str]]]:
    """A guest that has moved to host B and written there; and what was on its disks at the switchover."""
    guest = await fleet.boot(VDA, VDB, load="esd.mode=idle")
    before = await written(guest, 3 * MIB)
    await guest.migrate(fleet.b, handler, until_settled=False)
    assert await written(guest, 5 * MIB) != before
    return guest, before


def files(fleet: Fleet) -> list[object]:
    """Every image, record and key, and when it was written."""
    state = [f"/var/lib/qemu-esd/{folder}" for folder in ("disks", "link", "vm")]
    return [machine.files("/srv", *state) for machine in fleet.machines]


async def target_dies(guest: Guest) -> None:
    pid = guest.qemu().pid
    guest.kill()
    await ended(pid)
    guest.leave_terminal()


async def is_back(fleet: Fleet, guest: Guest, before: list[tuple[int, str]]) -> None:
    """It runs on host A, with all that was on its disks at the switchover and nothing later."""
    guest.machine, guest.generation = fleet.a, 0
    guest.console = Console()
    guest.listen()
    # In one file: what it said of its first boot, and then of this one.
    for _ in range(2):
        await guest.console.wait("ready")
    assert await content(guest) == before
    seen = (await say("status", "vm1", "--json")).json["vms"][0]
    assert (seen["host"], seen["run_state"], seen["generation"], seen["problem"]) == ("hostA", "running", 2, None)
    assert not [path for path in fleet.a.files("/srv") if "moved" in path]
    assert fleet.a.path_handlers() == ()


def the_story() -> store.Story:
    story = shelf.newest_of("vm1")
    assert story is not None
    return story


@pytest.mark.skipif(not ALL, reason="with ESD_FAULTS=all")
async def test_refused_while_the_target_lives(fleet: Fleet) -> None:
    guest = await fleet.idle(VDA)
    await guest.migrate(fleet.b, Handler.ON_DEMAND)
    before = files(fleet)
    for more in ((), ("--force-lost", "hostA")):
        told = await say(*DISCARD, "--yes", *more)
        assert told.status == (2 if more else 3), told
    assert "hostA is where vm1 would start" in told.err
    assert (await say("status", "vm1", "--json")).json["vms"][0]["host"] == "hostB"
    assert files(fleet) == before
    report.note(report.Line("rollback --discard-target", "the target runs the guest", "3", "nothing", "hostB"))
    assert (await say("settle", "vm1")).status == 0
    assert (await say("vm", "stop", "--force", "vm1")).status == 0
    settled = await say(*DISCARD, "--yes")
    assert (settled.status, "old data" in settled.err) == (3, True), settled
    report.note(report.Line("rollback --discard-target", "settled, the target dead", "3", "vm start (0)", "hostB"))
    assert (await say("vm", "start", "vm1")).status == 0
    await fleet.finish(guest, settle=False)


@pytest.mark.parametrize("handler", [Handler.ON_DEMAND, *([Handler.REDIRECT] if ALL else [])])
async def test_back_to_the_switchover(fleet: Fleet, handler: Handler) -> None:
    """Asked first, killed in between; then it moves again, and `release` removes what was given up."""
    guest, before = await moved_and_written(fleet, handler)
    await target_dies(guest)
    places = files(fleet)
    asked = await say(*DISCARD)
    assert (asked.status, "add: --yes" in asked.err, "WARNING" in asked.err) == (3, True, True), asked
    assert "vda: at most" in asked.err
    assert files(fleet) == places

    image = fleet.a.real(f"{VDA.path}.moved-{the_story().plan.id}")
    was = image.stat().st_mtime_ns
    image.touch()
    changed = await say(*DISCARD, "--yes")
    assert (changed.status, "is not the image that was left here" in changed.err) == (3, True), changed
    os.utime(image, ns=(was, was))

    died = await say_and_die(1, *DISCARD, "--yes")
    assert died.status == KILLED, died
    story = the_story()
    told = await say("status", "vm1")
    assert (f"qemu-esd resume {story.plan.id}" in told.out, "discarding" in told.out) == (True, True), told
    started = await say("vm", "start", "vm1")
    assert (started.status, "being started on hostA" in started.err) == (3, True), started
    resumed = await say("resume", story.plan.id)
    assert (resumed.status, "runs on hostA" in resumed.out) == (0, True), resumed
    await is_back(fleet, guest, before)
    again = await say(*DISCARD, "--yes")
    assert (again.status, "is over" in again.err) == (3, True), again

    notes = [path for path in fleet.b.files("/var/lib/qemu-esd/disks") if path.endswith(".json")]
    assert [json.loads(fleet.b.path(note).read_text())["generation"] for note in notes] == [1, 1]
    report.note(report.Line("QEMU of the target dead for good", f"handed over, {handler}", "-9", "resume (0)", "hostA"))
    guest.generation = 2
    await guest.migrate(fleet.b, Handler.BACKGROUND)
    assert await content(guest) == before
    await fleet.finish(guest, settle=False)
    assert not any(fleet.b.path(note).exists() for note in notes)


@pytest.mark.skipif(not ALL, reason="with ESD_FAULTS=all")
async def test_killed_between_any_two_of_its_acts(fleet: Fleet) -> None:
    """Given again, and killed one command later each time, until it comes to its end. There never are two guests."""
    guest, before = await moved_and_written(fleet)
    await target_dies(guest)
    for number in count(1):
        told = await say_and_die(f"command:{number}", *DISCARD, "--yes")
        assert told.status in (KILLED, 0), told
        assert len(fleet.a.qemus("vm1")) <= 1
        assert not fleet.b.qemus("vm1")
        if told.status == 0:
            break
    await is_back(fleet, guest, before)
    line = report.Line("SIGKILL of the controller", f"between any two of its {number} commands", "-9", "-", "hostA")
    report.note(replace(line, recovered="rollback --discard-target (0)"))
    guest.generation = 2
    await fleet.finish(guest, settle=False)


@pytest.mark.skipif(not ALL, reason="with ESD_FAULTS=all")
async def test_the_target_s_host_is_lost(own_fleet: Fleet) -> None:
    """Only by the word of the operator; and when the host is back it is told, before it can start anything."""
    fleet = own_fleet
    guest, before = await moved_and_written(fleet)
    init = fleet.b.lab.init
    assert init is not None
    kill(init.pid)
    await ended(init.pid)
    guest.leave_terminal()
    silent = await say(*DISCARD, "--yes")
    assert (silent.status, "--force-lost hostB" in silent.err) == (3, True), silent
    done = await say(*DISCARD, "--yes", "--force-lost", "hostB")
    assert (done.status, "has not been told" in done.out, "cannot be asked" in done.err) == (0, True, True), done

    hosts = (await lab.up(3)).lab.hosts
    fleet.machines = (fleet.a, fleet.b, fleet.c) = tuple(Machine(host) for host in hosts)
    told = await say("resume", "vm1")
    assert (told.status, "put its disks aside" in told.out) == (0, True), told
    await is_back(fleet, guest, before)
    assert [path for path in fleet.b.files("/var/lib/qemu-esd/disks") if ".discarded-" in path]
    report.note(report.Line("host of the target lost", "handed over", "-", "rollback --discard-target (0)", "hostA"))
    await fleet.finish(guest, settle=False)
