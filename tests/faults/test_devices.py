"""Devices that look shared, under a guest with a verifying load, while hosts, links and commands fail."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults import report
from tests.faults.devices import (
    BACK_SECONDS,
    FACE_LOOKS,
    FRESH,
    LONG_SECONDS,
    SUID,
    VDA,
    WRITES,
    finish,
    forget,
    killed_everywhere,
    on_device,
    power_cut,
    shown,
    state_of,
    until,
)
from tests.faults.report import thorough
from tests.integration.support import content
from tests.integration.support.commands import end, say, start
from tests.integration.support.drives import tool
from tests.integration.support.fleet import Fleet
from tests.integration.support.inside import monitor
from tests.integration.support.links import cut
from tests.integration.support.machine import STATE
from tests.integration.support.shared import strike, uri
from tests.support.small_disk import small_disk

pytestmark = pytest.mark.lab


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
