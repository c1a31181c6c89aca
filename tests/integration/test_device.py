"""Devices that look shared, by themselves: made before any guest, moved under one, with whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from itertools import cycle
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import devices
from qemu_esd.model.policy import Handler
from tests.integration.support.commands import end, say, say_and_die, start
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.machine import Machine
from tests.integration.support.shared import Bare, made, strike
from tests.integration.test_two_controllers import another

pytestmark = pytest.mark.lab

SUID, SIZE = "d1", 24 * MIB
SOCKET = f"/run/qemu-esd/device/{SUID}.sock"
URI = f"nbd+unix:///{SUID}?socket={SOCKET}"
MADE = ("device", "create", SUID, "--size", "8M", "--host")
FOLDER = "/var/lib/qemu-esd/device"
# So often two are made at once.
TIMES = int(os.environ.get("ESD_DEVICE_TIMES", "2"))
# So many moves in a row, and a command that is killed at each third place where it writes. With more moves at each one:
# docs/shared.md tells of that.
MOVES = int(os.environ.get("ESD_DEVICE_MOVES", "1"))
STEP = 3 if MOVES == 1 else 1
# Making one touches no guest: fewer are enough where all is tried.
MADE_STEP = 10 if MOVES == 1 else 1


async def test_life_of_a_device(fleet: Fleet) -> None:
    before = fleet.snapshot()
    mistakes = {
        ("--size", "10M"): "a device needs hosts",
        ("--host", "hostA"): "a device needs a size",
        ("a b", "--size", "10M", "--host", "hostA"): "cannot be the SUID",
        ("--size", "1000", "--host", "hostA"): "no whole sectors",
        ("--size", "1M", "--host", "hostA,hostA"): "each of them once",
        ("--size", "1M", "--host", "hostA", "--owner", "me"): "not a user and a group",
    }
    answers = await asyncio.gather(*(say("device", "create", *words) for words in mistakes))
    for said, why in zip(answers, mistakes.values(), strict=True):
        assert (said.status, why in said.err) == (2, True), said.err
    assert (await say("device", "show", SUID)).status == 3
    await fleet.unchanged(before)

    # On demand: a background move would flush what is to be lost if ever it can be.
    words = ("device", "create", SUID, "--size", "8M", "--host", "hostA,hostB", "--policy", "on-demand")
    assert (await say(*words)).status == 0
    said = await say("device", "create", SUID, "--size", "8M", "--host", "hostB")
    assert (said.status, "there is a device d1 already" in said.err) == (3, True)
    # Another controller, which knows one host only.
    told = (await say("device", "list", "--host", "hostB", "--json")).json["devices"]
    assert [(one["suid"], one["authority"], one["hosts"]) for one in told] == [(SUID, "hostA", ["hostA", "hostB"])]
    exports = (await say("qmp", f"{SUID}@hostB", "query-block-exports")).json
    assert [one["node-name"] for one in exports] == ["esd-d1-srv"]
    refused = await say("qmp", f"{SUID}@hostA", "block-export-del", f"id={exports[0]['id']}")
    assert (refused.status, "d1 on hostA does so through this path handler" in refused.err) == (3, True)
    # A stranger without the key gets nothing from the gate.
    (gate,) = [place for place in fleet.a.listening() if fleet.a.address in place]
    done = fleet.b.run("qemu-img", "info", "-f", "raw", f"nbd://{gate}/{SUID}.gate", check=False)
    assert done.returncode != 0
    assert "TLS" in done.stderr
    secrets = fleet.a.path(f"/var/lib/qemu-esd/device/{SUID}/keys.psk")
    assert secrets.stat().st_mode & 0o777 == 0o600
    key = secrets.read_text().strip().partition(":")[2]
    assert not [one for machine in fleet.machines for one in machine.processes() if key in " ".join(one.argv)]

    await its_authority_follows(fleet)
    assert (await say("device", "delete", SUID)).status == 2
    assert (await say("device", "delete", SUID, "--yes")).status == 0
    assert (await say("device", "list")).out == ""
    fleet.check_empty()


async def its_authority_follows(fleet: Fleet) -> None:
    """Somebody uses it on hostB, and `follow` sees it. What was acknowledged then is there after a kill."""
    following = await start("device", "follow", SUID, "--every", "0.2")
    client = await asyncio.create_subprocess_exec(
        *inside(fleet.b, "qemu-io", "-t", "writeback", "-f", "raw", URI),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert following.stderr is not None
    await written(client, "write -P 0x11 0 64k")
    line = await asyncio.wait_for(following.stderr.readline(), 60)
    assert line.decode() == f"{SUID} is at hostB now\n"
    await written(client, "write -P 0x22 1M 64k")
    strike(fleet.b, SUID, "face")
    await client.communicate(b"quit\n")
    while fleet.b.run("qemu-io", "-f", "raw", "-c", "read 0 512", URI, check=False).returncode != 0:
        await asyncio.sleep(0.1)
    done = fleet.b.run("qemu-io", "-f", "raw", "-c", "read -P 0x11 0 64k", "-c", "read -P 0x22 1M 64k", URI)
    assert "verification failed" not in done.stdout, done.stdout
    following.terminate()
    assert (await end(following)).status == 1
    told = (await say("device", "show", SUID, "--json")).json
    assert (told["authority"], told["broken_off"]) == ("hostB", False)


def inside(machine: Machine, *argv: str) -> tuple[str, ...]:
    assert machine.lab.init is not None
    return ("nsenter", f"--target={machine.lab.init.pid}", "--all", "--wd=/", "--", *argv)


async def written(client: asyncio.subprocess.Process, command: str) -> None:
    """Acknowledged, and not flushed."""
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(f"{command}\n".encode())
    await asyncio.wait_for(client.stdout.readuntil(b"wrote 65536/65536 bytes"), 30)


@pytest.mark.parametrize("other", ["hostA,hostB", "hostB,hostA"])
async def test_two_are_made_at_once(fleet: Fleet, tmp_path: Path, other: str) -> None:
    """By two controllers that know nothing of each other: one comes first, and the other has touched nothing of its."""
    for _ in range(TIMES):
        first = await start(*MADE, "hostA,hostB")
        with another(tmp_path):
            second = await start(*MADE, other)
        said = sorted(await asyncio.gather(end(first), end(second)), key=lambda each: each.status or 0)
        assert [each.status for each in said] == [0, 3], said
        assert said[1].err.count(f"a device {SUID}") == 1, said
        told = (await say("device", "show", SUID, "--host", "hostB", "--json")).json
        assert not told["broken_off"]
        assert sum(place["path_handler"] == place["gate"] == "running" for place in told["places"]) == 1
        assert len(list(fleet.a.path(FOLDER).iterdir())) == len(list(fleet.b.path(FOLDER).iterdir())) == 1
        for machine, command in ((fleet.a, "write -P 0x33 0 64k"), (fleet.b, "read -P 0x33 0 64k")):
            done = machine.run("qemu-io", "-f", "raw", "-c", command, URI)
            assert "verification failed" not in done.stdout, done
        assert (await say("device", "delete", SUID, "--yes")).status == 0
        fleet.check_empty()


async def test_making_one_is_killed_anywhere(fleet: Fleet, tmp_path: Path) -> None:
    """At each command that it gives to a host. The same again is refused, and names the command that removes the rest;
    another controller does so too, itself killed at each place once."""
    refused, number = 0, 1
    while (await say_and_die(f"command:{number}", *MADE, "hostA,hostB")).status == -signal.SIGKILL:
        again = await say(*MADE, "hostB,hostA")
        if again.status != 0:
            refused += 1
            assert again.status == 3, again
            (hint,) = [line.partition("qemu-esd ")[2].split() for line in again.err.splitlines() if "qemu-esd " in line]
            assert hint[:3] in (["device", "delete", SUID], ["device", "show", SUID]), again
        with another(tmp_path):
            await deleted(number)
        fleet.check_empty()
        number += MADE_STEP
    assert refused * MADE_STEP >= 10
    assert (await say("device", "delete", SUID, "--yes")).status == 0
    fleet.check_empty()


async def deleted(number: int) -> None:
    """By a command that is killed, and then by one that is not; it is gone at last."""
    words = ("device", "delete", SUID, "--yes", "--host", "hostB")
    said = await say_and_die(f"command:{number}", *words)
    if said.status == -signal.SIGKILL:
        said = await say(*words)
    if said.status == 3:
        said = await say(*words[:-1], "hostA")
    assert said.status in (0, 3), said


async def test_whoever_is_killed(fleet: Fleet) -> None:
    drive = Drive("vda", 7, size=SIZE)
    await made(SUID, drive, fleet.a, fleet.b)
    guest = Bare(fleet.a, SUID, drive)
    await guest.boot(fleet.image)
    await guest.is_well()
    for words in (("move", SUID, "hostB"), ("delete", SUID, "--yes")):
        said = await say("device", *words)
        assert (said.status, "is used there by qemu-system" in said.err) == (3, True), said.err
    strike(fleet.a, SUID, "face")
    await guest.is_well()
    await guest.move_plainly(fleet.b)
    for struck in (((fleet.a, "face"),), ((fleet.a, "gate"), (fleet.b, "face"))):
        for machine, part in struck:
            strike(machine, SUID, part)
        await guest.is_well()
    await one_move_broken_everywhere(fleet, guest, fleet.b)
    for _, (target, other) in zip(range(MOVES), cycle(((fleet.a, fleet.b), (fleet.b, fleet.a))), strict=False):
        await guest.move_plainly(target)
        await moved(target, Handler.ON_DEMAND)
        for parts in ("face", "gate"), ("gate", "face"):
            for machine, part in zip((target, other), parts, strict=True):
                strike(machine, SUID, part)
            await guest.is_well()
        await settled()
        await guest.is_well()
    await guest.pause()
    await guest.recheck()
    await guest.power_off()
    assert (await say("device", "delete", SUID, "--yes")).status == 0


async def one_move_broken_everywhere(fleet: Fleet, guest: Bare, target: Machine) -> None:
    """The command is killed before it writes, at one place after the other; then a daemon; the next command goes on.

    Once with the old host having the authority, and once with the new one.
    """
    places, taken, number = 0, False, 1
    while await breaks(target, number):
        strike(*((fleet.a, SUID, "face"), (target, SUID, "face"), (fleet.a, SUID, "gate"))[places % 3])
        await guest.is_well()
        at_target = (await say("device", "show", SUID, "--json")).json["authority"] == target.name
        if places == 1:
            assert not at_target
            await moved(fleet.a, Handler.BACKGROUND)
            await guest.is_well()
        number = 1 if at_target and not taken else number + STEP
        places, taken = places + 1, at_target
    assert taken
    assert places * STEP >= 10
    told = (await say("device", "show", SUID, "--json")).json
    assert (told["authority"], told["broken_off"]) == (target.name, False)
    await settled()


async def breaks(target: Machine, number: int) -> bool:
    """Whether a move comes to so many writes, where it is killed then."""
    said = await say_and_die(f"write:{number}", "device", "move", SUID, target.name)
    assert said.status in (0, -signal.SIGKILL), said
    return said.status != 0


async def moved(target: Machine, handler: Handler) -> None:
    async with devices.opened() as crew:
        await devices.move(crew, SUID, target.name, handler)


async def settled() -> None:
    async with devices.opened() as crew:
        record = await devices.settle(crew, SUID, lambda *_: None)
        assert record.is_whole
        await devices.release(crew, SUID)
