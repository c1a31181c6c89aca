"""A host is emptied: all guests are tried out, move, and settle; whatever stops it, the same command goes on."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterable

import pytest

from images.build import GuestImage
from images.pattern import MIB
from qemu_esd import api
from qemu_esd.hosts import lab
from qemu_esd.model.evacuation import Evacuation, Whereabouts
from qemu_esd.model.record import State
from tests.integration.support.commands import Said, end, say, say_and_die, start
from tests.integration.support.domain import Domain, booted, nothing_left
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import running_on, tell
from tests.integration.support.machine import Machine, kill
from tests.integration.test_rollback import places

pytestmark = pytest.mark.lab

Hosts = tuple[lab.LabHost, ...]
LOAD = "esd.mode=verify esd.rate=50"
KILLED = -signal.SIGKILL


async def two(fleet: Fleet) -> tuple[Guest, Guest]:
    """Two guests under load on host A."""
    db1 = await fleet.boot(Drive("vda", 7, "db1.qcow2", size=8 * MIB, chain=1), name="db1", load=LOAD)
    web1 = await fleet.boot(Drive("vda", 9, "web1.raw", size=8 * MIB), name="web1", load=LOAD)
    return db1, web1


def followed(fleet: Fleet, said: Said, *guests: Guest) -> None:
    """They are where the command says."""
    on = {told["vm"]: told["host"] for told in said.json["guests"]}
    for guest in guests:
        (machine,) = (each for each in fleet.machines if each.name == on[guest.name])
        if machine is not guest.machine:
            guest.arrived(machine)


async def all_well(fleet: Fleet, guests: Iterable[Guest]) -> None:
    """Each runs once, and all that it reads is right."""
    for guest in guests:
        assert await running_on(fleet.machines, guest.name) == [guest.machine.name]
        await guest.is_well()
        await guest.pause()
        await guest.recheck()


def states(said: Said) -> dict[str, str]:
    return {told["vm"]: told["state"] for told in said.json["guests"]}


async def test_all_of_them_or_none(fleet: Fleet) -> None:
    db1, web1 = await two(fleet)
    odd = await fleet.idle(Drive("vda", 11, "odd.raw", size=4 * MIB), name="odd")
    await tell(odd, "stop")
    before = places(fleet)

    refused = await say("evacuate", "hostA", "hostB")
    assert (refused.status, refused.out) == (3, "")
    assert (
        "odd cannot move: hostA: odd does not run, it is paused\n    try: let it run first: qemu-esd vm" in refused.err
    )
    assert "--skip-refused" in refused.err
    assert places(fleet) == before

    partly = await say("evacuate", "hostA", "hostB", "hostC", "--skip-refused", "--json")
    assert (partly.status, partly.json["empty"]) == (1, False)
    assert states(partly) == {"db1": "settled", "odd": "stays", "web1": "settled"}
    followed(fleet, partly, db1, web1)
    assert {db1.machine, web1.machine} <= {fleet.b, fleet.c}
    assert fleet.a.path_handlers() == ()
    assert "db1: switched over: db1 runs on host" in partly.err
    await all_well(fleet, (db1, web1))

    await tell(odd, "cont")
    all_of_it = await say("evacuate", "hostA", "hostB", "--release", "--json")
    assert (all_of_it.status, all_of_it.json["empty"]) == (0, True), all_of_it.err
    assert states(all_of_it) == dict.fromkeys(("db1", "odd", "web1"), "released")
    followed(fleet, all_of_it, odd)
    # Nothing is left there but where they have gone.
    assert [name for name in fleet.a.leftovers() if "/vm/" not in name] == []
    await fleet.finish(db1, web1, odd)


async def test_killed_and_stopped_and_given_again(fleet: Fleet) -> None:
    """Killed when the first guest runs on the target already; stopped when the second one does."""
    db1, web1 = await two(fleet)
    words = ("evacuate", "hostA", "hostB")
    assert (await say_and_die("before:handed-over", *words)).status == KILLED
    assert await running_on(fleet.machines, "db1") == ["hostB"]
    assert await running_on(fleet.machines, "web1") == ["hostA"]
    tried = await say(*words, "--dry-run", "--json")
    assert [(told["vm"], told["action"]) for told in tried.json["guests"]] == [("db1", "resume"), ("web1", "move")]

    working = await start(*words, "--bandwidth", "1M")
    await heard(working, b"web1: handed over")
    working.send_signal(signal.SIGINT)
    stopped = await end(working)
    assert stopped.status == 4, stopped
    assert "web1 runs on hostB, and needs hostA" in stopped.err
    assert "try: to go on: qemu-esd evacuate hostA hostB --bandwidth 1M" in stopped.err

    last = await say(*words, "--json")
    assert last.status == 0, last.err
    assert states(last) == {"db1": "settled", "web1": "settled"}
    followed(fleet, last, db1, web1)
    await all_well(fleet, (db1, web1))
    await fleet.finish(db1, web1)


async def heard(process: asyncio.subprocess.Process, words: bytes) -> None:
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while line := await process.stderr.readline():
            if words in line:
                return
    raise AssertionError(f"it ended without saying {words!r}")


@pytest.mark.skipif(os.environ.get("ESD_FAULTS") != "all", reason="takes minutes; ESD_FAULTS=all")
@pytest.mark.timeout(1800)
async def test_killed_at_any_place(fleet: Fleet) -> None:
    """After each record of its journals, with fewer to come each time."""
    db1, web1 = await two(fleet)
    record, said = 1, await say_and_die("1", "evacuate", "hostA", "hostB", "--json")
    while said.status == KILLED:
        for name in ("db1", "web1"):
            assert len(await running_on(fleet.machines, name)) <= 1
        record += 1
        said = await say_and_die(str(record), "evacuate", "hostA", "hostB", "--json")
    assert (said.status, record > 10) == (0, True), said.err
    followed(fleet, said, db1, web1)
    await all_well(fleet, (db1, web1))
    await fleet.finish(db1, web1)


async def test_a_target_that_fails_in_the_middle(fleet: Fleet) -> None:
    """Its guest is where it was, the others go on; given again, it moves too."""
    db1, web1 = await two(fleet)

    def hear(vm: str, event: api.Event) -> None:
        if (vm, event) == ("db1", State.SWITCHING):
            kill(fleet.b.qemu("db1").pid)

    done = await api.evacuate(Evacuation("hostA", ("hostB",)), hear)
    assert (done.exit_status, done.empty) == (1, False)
    told = {guest.vm: guest for guest in done.guests}
    assert (told["db1"].state, told["db1"].host) == (Whereabouts.STAYS, "hostA")
    assert told["db1"].problem
    assert (told["web1"].state, told["web1"].problem) == (Whereabouts.SETTLED, None)
    web1.arrived(fleet.b)
    await db1.is_well()
    last = await say("evacuate", "hostA", "hostB", "--json")
    assert last.status == 0, last.err
    followed(fleet, last, db1, web1)
    await all_well(fleet, (db1, web1))
    await fleet.finish(db1, web1)


async def test_what_needs_the_host_on_purpose_is_said(fleet: Fleet) -> None:
    guest = await fleet.idle(Drive("vda", 7, size=8 * MIB))
    left = await say("evacuate", "hostA", "hostB", "--policy", "redirect", "--json")
    assert left.status == 4, left.err
    assert left.json["guests"][0] | {"downtime_ms": 0} == {
        "vm": "vm1", "state": "needs-host", "host": "hostB", "downtime_ms": 0, "problem": None,
        "next": "qemu-esd settle vm1",
    }  # fmt: skip
    guest.arrived(fleet.b)
    settled = await say("evacuate", "hostA", "hostC")
    assert settled.status == 0, settled.err
    assert re.search(r"^vm1 +hostB +settled +qemu-esd release vm1$", settled.out, re.MULTILINE)
    await fleet.finish(guest)


async def test_a_domain_and_a_bare_guest(libvirt_hosts: Hosts, guest_image: GuestImage) -> None:
    async with booted(libvirt_hosts, guest_image, Drive("vda", 7, size=8 * MIB)) as (web1, b):
        bare = Guest("bare1", web1.machine, (Drive("vda", 9, "bare1.raw", size=4 * MIB),))
        await bare.start(None)
        done = await say("evacuate", "hostA", "hostB", "--transport", "ssh", "--release", "--json")
        assert done.status == 0, done.err
        assert states(done) == {"bare1": "released", "web1": "released"}
        assert (web1.machine.qemus("web1"), web1.machine.qemus("bare1")) == ((), ())
        arrived(web1, b)
        await web1.is_well()
        await web1.pause()
        await web1.recheck()
        bare.arrived(b)
        await bare.power_off()
        assert (await say("vm", "forget", "bare1")).status == 0
        nothing_left(web1.machine, b)


def arrived(web1: Domain, machine: Machine) -> None:
    assert web1.machine.run("virsh", "--quiet", "list", "--all", "--name").stdout.strip() == ""
    web1.arrived(machine)
    assert web1.state() == "running"
