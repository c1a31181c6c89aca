"""Devices that look shared, under a guest with a verifying load, while hosts, links and commands fail."""

from __future__ import annotations

import asyncio
import signal

import pytest

from images.pattern import MIB
from qemu_esd import guests
from qemu_esd.graph.nodes import RECONNECT_SECONDS
from qemu_esd.hosts import lab
from qemu_esd.hosts.connect import open_hosts
from tests.faults import report
from tests.faults.report import thorough
from tests.integration.support import content
from tests.integration.support.commands import end, say, say_and_die, start
from tests.integration.support.drives import Drive, tool
from tests.integration.support.fleet import Fleet
from tests.integration.support.inside import monitor, tell
from tests.integration.support.links import cut
from tests.integration.support.machine import STATE, Machine, ended, kill
from tests.integration.support.shared import Bare, made, strike, uri
from tests.support.small_disk import small_disk

pytestmark = pytest.mark.lab

SUID = "d1"
VDA = Drive("vda", 7, size=16 * MIB)
# Of the rest of the disk nobody reads but who says so.
WRITES = "esd.mode=verify esd.rate=200 esd.mix=60/40/0 esd.area=4M esd.spread=0"
READS = "esd.mode=verify esd.rate=200 esd.mix=10/0/90"
# Longer than a guest's disk waits for its path handler, and that one for another host.
LONG_SECONDS = 60.0
# For so long a path handler that has come back looks for guests to be told to go on.
FACE_LOOKS = 12.0
FRESH = (6 * MIB, MIB // 2)
BACK_SECONDS = 60.0


async def on_device(fleet: Fleet, load: str = READS) -> Bare:
    """A guest on hostB, while hostA has the authority, and hostC is a host of the device too."""
    await made(SUID, VDA, fleet.a, fleet.b, fleet.c)
    guest = Bare(fleet.b, SUID, VDA)
    await guest.boot(fleet.image, load)
    await guest.is_well()
    return guest


async def finish(fleet: Fleet, guest: Bare, fault: str, phase: str, command: str, then: str) -> None:
    """All that was written is right, nothing is left, and a line for the table."""
    await guest.pause()
    await guest.recheck()
    report.note(report.Line(fault, phase, command, then, guest.machine.name))
    await guest.power_off()
    await forget(fleet, guest)


async def forget(fleet: Fleet, guest: Bare) -> None:
    said = await say("device", "delete", SUID, "--yes")
    assert said.status == 0, said
    async with open_hosts() as hosts:
        await guests.forget(hosts, guest.name, [machine.name for machine in fleet.machines])
    fleet.check_empty()


async def state_of(guest: Bare) -> str:
    return str((await tell(guest, "query-status"))["status"])


async def until(guest: Bare, wanted: str, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while await state_of(guest) != wanted:
            await asyncio.sleep(0.5)


async def shown() -> tuple[str, bool, int]:
    """Who has the authority, whether something was broken off, how many bytes are elsewhere."""
    told = (await say("device", "show", SUID, "--json")).json
    return told["authority"], told["broken_off"], told["remote_bytes"]


async def power_cut(fleet: Fleet, machine: Machine) -> Machine:
    """As if by the power switch: all that ran is gone, and all in /run. The host is up again."""
    init = machine.lab.init
    assert init is not None
    kill(init.pid)
    await ended(init.pid)
    (fleet.a, fleet.b, fleet.c) = fleet.machines = tuple(Machine(host) for host in (await lab.up(3)).lab.hosts)
    return next(each for each in fleet.machines if each.name == machine.name)


@pytest.mark.parametrize("role", ["behind", pytest.param("authority", marks=thorough)])
async def test_a_host_loses_its_power(own_fleet: Fleet, role: str) -> None:
    """The guest on hostB reads from it, or through it: it goes on by itself when that is served again."""
    fleet = own_fleet
    guest = await on_device(fleet)
    if role == "behind":
        assert (await say("device", "move", SUID, "hostB")).status == 0
    before = await shown()
    await power_cut(fleet, fleet.a)
    guest.machine = fleet.b
    left = (await say("doctor", "hostA", "--json")).json["findings"]
    assert [one["hint"] for one in left if f"face-{SUID}" in one["what"]] == ["qemu-esd host restore hostA"]
    assert f"device restore {SUID}" in (await say("status")).out
    told = await say("host", "restore", "hostA")
    assert (told.status, f"face-{SUID}: started" in told.out) == (0, True), told
    await until(guest, "running", BACK_SECONDS)
    await guest.is_well()
    assert (await shown())[:2] == before[:2]
    await finish(fleet, guest, f"host loses its power ({role})", "device", "-", "host restore (0)")


@pytest.mark.parametrize("where", ["hostB", pytest.param("hostC", marks=thorough)])
async def test_a_guest_waits_for_room(fleet: Fleet, where: str) -> None:
    """The disk of the host that has the authority is full: the guest, there or elsewhere, sees no error. Whoever has
    made room tells it to go on, and nobody else: not a path handler that has just been started."""
    guest = await on_device(fleet, WRITES)
    with small_disk(fleet.b, f"{STATE}/disks", "64M") as room:
        assert (await say("device", "move", SUID, "hostB")).status == 0
        await guest.is_well()
        if where == "hostC":
            await guest.move_plainly(fleet.c)
        room.fill()
        waiting = asyncio.ensure_future(guest.write(VDA, *FRESH))
        await until(guest, "io-error", LONG_SECONDS)
        said = f"vm1 stands still on {where}: no space is left for {SUID} on hostB"
        for words in (("status",), ("device", "show", SUID)):
            told = await say(*words)
            assert said in " ".join((told.out + told.err).split()), told
        told = (await say("device", "show", SUID, "--json")).json["places"]
        assert [place["host"] for place in told if place["waiting_for_room"] == ["vm1"]] == [where]
        early = await say("vm", "cont", "vm1")
        await until(guest, "io-error", LONG_SECONDS)
        async with monitor(guest) as qemu:
            with qemu.listener(("RESUME",)) as resumed:
                strike(guest.machine, SUID, "face")
                await asyncio.sleep(FACE_LOOKS)
                assert resumed.empty()
        room.make_room()
        assert (await say("vm", "cont", "vm1")).status == 0
        assert await waiting == 0
        await guest.is_well()
        assert (await say("device", "settle", SUID)).status == 0
        note = f"vm cont ({early.status}), room, vm cont (0)"
        await finish(fleet, guest, "full disk at the authority", f"device, guest on {where}", "-", note)


@thorough
async def test_the_host_of_the_guest_loses_its_power(own_fleet: Fleet) -> None:
    """What it had flushed is there."""
    fleet = own_fleet
    guest = await on_device(fleet)
    assert (await say("device", "move", SUID, "hostB")).status == 0
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    crc = await guest.crc(VDA)
    guest.machine = await power_cut(fleet, fleet.b)
    guest.leave_terminal()
    assert (await say("host", "restore", "hostB")).status == 0
    copy = fleet.b.real("/srv/copy.raw")
    tool("qemu-img", "convert", "-O", "raw", uri(SUID, fleet.b), str(copy))
    assert content.crc(copy) == crc
    copy.unlink()
    for words in (("vm", "start", guest.name), ("device", "settle", SUID)):
        assert (await say(*words)).status == 0
    report.note(
        report.Line("host of the guest loses its power", "device", "-", "host restore (0), vm start (0)", "hostB")
    )
    await guest.power_off()
    await forget(fleet, guest)


@thorough
async def test_two_commands_at_once(fleet: Fleet) -> None:
    """Each is refused, or comes to its end; whatever the order, there is one authority, and all know it.

    Then on to a third host.
    """
    guest = await on_device(fleet)
    words = (("move", SUID, "hostB"), ("move", SUID, "hostB"), ("restore", SUID))
    said = await asyncio.gather(*[say("device", *each) for each in words])
    print(said)
    assert {each.status for each in said} <= {0, 3}, said
    assert 0 in {said[0].status, said[1].status}, said
    assert (await shown())[:2] == ("hostB", False)
    await guest.is_well()
    await guest.move_plainly(fleet.c)
    for each in (("settle", SUID), ("move", SUID, "hostC"), ("settle", SUID)):
        assert (await say("device", *each)).status == 0
        await guest.is_well()
    assert await shown() == ("hostC", False, 0)
    await finish(fleet, guest, "two commands at once", "device move", "0 or 3", "nothing")


async def on_a_chain(fleet: Fleet) -> Bare:
    """A guest on hostC, whose device reads from hostB what that one has, and from hostA by hostB what it has not."""
    guest = await on_device(fleet, WRITES)
    assert (await say("device", "move", SUID, "hostB")).status == 0
    await guest.is_well()
    await guest.move_plainly(fleet.c)
    assert (await say("device", "move", SUID, "hostC")).status == 0
    told = (await say("device", "show", SUID, "--json")).json
    assert (told["authority"], told["reads_from"], told["reads_beyond"]) == ("hostC", "hostB", ["hostA"])
    assert told["remote_bytes"] > VDA.size // 2
    await guest.is_well()
    return guest


async def test_it_moves_on_before_it_is_settled(fleet: Fleet) -> None:
    """Daemons are killed on each of the three hosts. It cannot go back to a host from which it reads, and says so."""
    guest = await on_a_chain(fleet)
    for place, machine in enumerate(fleet.machines, 8):
        for part in ("face", "gate"):
            strike(machine, SUID, part)
        assert await guest.read(VDA, place * MIB, MIB // 2) == 0
        await guest.is_well()
    for target in "hostA", "hostB":
        await guest.move_plainly(fleet.a if target == "hostA" else fleet.b)
        refused = await say("device", "move", SUID, target)
        hint = f"qemu-esd device settle {SUID} && qemu-esd device move {SUID} {target}"
        assert (refused.status, hint in " ".join(refused.err.split())) == (3, True), refused
        await guest.is_well()
    await guest.move_plainly(fleet.c)
    said = await say("device", "settle", SUID)
    assert said.status == 0, said
    assert await shown() == ("hostC", False, 0)
    await guest.is_well()
    told = (await say("device", "show", SUID, "--json")).json["left"]
    assert sorted(one["host"] for one in told) == ["hostA", "hostB"]
    assert (await say("device", "release", SUID)).status == 0
    await finish(fleet, guest, "daemons killed on three hosts", "device, moved on before it is settled", "-", "nothing")


@thorough
@pytest.mark.parametrize("lost", ["hostA", "hostB", "hostA and hostB"])
async def test_hosts_of_a_chain_lose_their_power(own_fleet: Fleet, lost: str) -> None:
    fleet = own_fleet
    guest = await on_a_chain(fleet)
    before = await shown()
    for name in lost.split(" and "):
        await power_cut(fleet, fleet.a if name == "hostA" else fleet.b)
    words = ("device", "restore", SUID) if "and" in lost else ("host", "restore", lost)
    told = await say(*words)
    assert told.status == 0, told
    guest.machine = fleet.c
    await until(guest, "running", BACK_SECONDS)
    await guest.is_well()
    assert (await shown())[:2] == before[:2]
    assert (await say("device", "settle", SUID)).status == 0
    fault = f"{lost} lose their power" if "and" in lost else f"{lost} loses its power"
    await finish(fleet, guest, fault, "device on hostC, hostB, hostA", "-", f"{words[0]} restore (0)")


@thorough
@pytest.mark.parametrize("ends", [("hostA", "hostB"), ("hostB", "hostC")])
async def test_a_way_of_a_chain_is_dead(fleet: Fleet, ends: tuple[str, str]) -> None:
    """Also where the host of the guest has no part in it: what it reads or writes there waits, and nobody tells that
    host when the way is there again."""
    guest = await on_a_chain(fleet)
    async with cut(*ends):
        settling = await say("device", "settle", SUID)
        print(settling)
        assert (settling.status, f"qemu-esd device settle {SUID}" in " ".join(settling.err.split())) == (4, True)
        # Of a cluster the rest of which is elsewhere.
        writing = asyncio.ensure_future(guest.write(VDA, 10 * MIB + 4096, 4096))
        if guest.machine.name in ends:
            await until(guest, "io-error", LONG_SECONDS)
        else:
            _, waiting = await asyncio.wait({writing}, timeout=2 * RECONNECT_SECONDS)
            assert waiting
    await until(guest, "running", BACK_SECONDS)
    assert await writing == 0
    assert await guest.read(VDA, 0, VDA.size) == 0
    await guest.is_well()
    assert (await say("device", "settle", SUID)).status == 0
    fault = f"link {ends[0]} - {ends[1]} cut for long"
    await finish(fleet, guest, fault, "device on hostC, hostB, hostA", f"settle ({settling.status})", "settle (0)")


@thorough
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("what", ["command", "question"])
async def test_moving_on_is_killed_anywhere(fleet: Fleet, what: str) -> None:
    guest = await on_device(fleet, WRITES)
    assert (await say("device", "move", SUID, "hostB")).status == 0
    await guest.move_plainly(fleet.c)
    for words in (("move", SUID, "hostC"), ("settle", SUID)):
        kills = await killed_everywhere(guest, what, words)
        fault = f"controller killed at each {what}"
        phase = f"device {words[0]}, before it is settled"
        report.note(report.Line(fault, phase, f"-9, {kills} times", "the same again (0)", "hostC"))
    assert await shown() == ("hostC", False, 0)
    await finish(fleet, guest, f"controller killed at each {what}", "device, moved on", "-", "nothing")


@thorough
async def test_a_host_is_put_back_to_an_old_state(fleet: Fleet) -> None:
    """Its record says that it has the authority, and so do its units. Nobody else believes it."""
    guest = await on_device(fleet)
    kept = (f"device/{SUID}", f"unit/face-{SUID}/run", f"unit/gate-{SUID}/run")
    fleet.a.run("tar", "-C", STATE, "-cf", "/srv/old.tar", *kept)
    assert (await say("device", "move", SUID, "hostB")).status == 0
    fleet.a.run("tar", "-C", STATE, "-xf", "/srv/old.tar")
    fleet.a.remove("/srv/old.tar")
    for part in ("gate", "face"):
        strike(fleet.a, SUID, part)
    authority, broken_off, _ = await shown()
    assert (authority, broken_off) == ("hostB", True)
    told = (await say("doctor", "hostA", "hostB", "--json")).json["findings"]
    assert [one["hint"] for one in told if one["check"] == "devices"] == [f"qemu-esd device restore {SUID}"]
    said = await say("device", "restore", SUID)
    assert said.status == 0, said
    await until(guest, "running", BACK_SECONDS)
    await guest.is_well()
    assert (await say("device", "settle", SUID)).status == 0
    await finish(fleet, guest, "a host is put back to an old state", "device", "-", "device restore (0)")


@thorough
async def test_the_link_is_dead_for_a_while(fleet: Fleet) -> None:
    """A short gap is waited for; after a long one the guest goes on by itself."""
    guest = await on_device(fleet)
    async with cut("hostA", "hostB"):
        await asyncio.sleep(6)
        assert await state_of(guest) == "running"
    await guest.is_well()
    async with cut("hostA", "hostB"):
        await until(guest, "io-error", LONG_SECONDS)
    await until(guest, "running", BACK_SECONDS)
    await guest.is_well()
    await finish(fleet, guest, "link cut for 6 s, and for long", "device forwarded", "-", "nothing")


@thorough
async def test_the_link_is_dead_while_it_moves_and_settles(fleet: Fleet) -> None:
    """Each command ends by itself, and says which one goes on."""
    guest = await on_device(fleet)
    for words, phase in ((("move", SUID, "hostB"), "device move"), (("settle", SUID), "device settle")):
        async with cut("hostA", "hostB"):
            said = await say("device", *words)
            print(said)
            hint = f"qemu-esd device {' '.join(words)}"
            assert (said.status, hint in " ".join(said.err.split())) == (4, True), said
        await until(guest, "running", BACK_SECONDS)
        assert (await say("device", *words)).status == 0
        await guest.is_well()
        report.note(report.Line("link cut for long", phase, f"({said.status})", "the same again (0)", "hostB"))
    assert await shown() == ("hostB", False, 0)
    await finish(fleet, guest, "link cut for long", "device, settled", "-", "nothing")


@thorough
async def test_the_link_is_dead_for_a_moment_while_it_settles(fleet: Fleet) -> None:
    guest = await on_device(fleet)
    assert (await say("device", "move", SUID, "hostB")).status == 0
    settling = await start("device", "settle", SUID, "--bandwidth", "4M")
    assert settling.stderr is not None
    await settling.stderr.readline()
    async with cut("hostA", "hostB"):
        await asyncio.sleep(6)
    said = await end(settling)
    assert said.status == 0, said
    await guest.is_well()
    await finish(fleet, guest, "link cut for 6 s", "device settle", "(0)", "nothing")


@thorough
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("what", ["command", "question"])
async def test_the_command_is_killed_anywhere(fleet: Fleet, what: str) -> None:
    """At each command that it gives to a host, or each question to a daemon, of `move`, `settle` and `release`."""
    guest = await on_device(fleet)
    for words in (("move", SUID, "hostB"), ("settle", SUID), ("release", SUID)):
        kills = await killed_everywhere(guest, what, words)
        fault = f"controller killed at each {what}"
        report.note(report.Line(fault, f"device {words[0]}", f"-9, {kills} times", "the same again (0)", "hostB"))
    assert await shown() == ("hostB", False, 0)
    await finish(fleet, guest, f"controller killed at each {what}", "device", "-", "nothing")


async def killed_everywhere(guest: Bare, what: str, words: tuple[str, ...]) -> int:
    """How often. What one has done the next finds done; when the authority has moved it begins anew, once."""
    number, kills, authority = 1, 0, (await shown())[0]
    while (said := await say_and_die(f"{what}:{number}", "device", *words)).status == -signal.SIGKILL:
        kills, number, before = kills + 1, number + 1, authority
        authority = (await shown())[0]
        if authority != before:
            number = 1
        if kills % 5 == 0:
            await guest.is_well()
    assert said.status == 0, said
    assert (await shown())[1] is False
    return kills
