"""Bare guests: started, listed, refused, forgotten."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress

import pytest

from images.console import parse
from images.pattern import MIB
from qemu_esd import guests, listing
from qemu_esd.errors import EsdError, RefusedError
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.model.policy import Handler
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest

pytestmark = pytest.mark.lab

HOSTS = ("hostA", "hostB", "hostC")
VDA = Drive("vda", 7, size=4 * MIB)
ASKED = 60


async def test_the_console_is_recorded_wherever_it_runs(fleet: Fleet) -> None:
    guest = await fleet.boot(VDA)
    await guest.status()
    await guest.migrate(fleet.b, Handler.BACKGROUND)
    await guest.status()
    await guest.migrate(fleet.c, Handler.BACKGROUND)
    last = await guest.status()
    await guest.pause()
    async with open_hosts() as hosts:
        text = (await guests.console_log(hosts, "vm1", HOSTS)).decode()
    lines = [line for line in map(parse, text.splitlines()) if line]
    numbers = [line.number("n") for line in lines if line.word == "status"]
    assert lines[0].word == "disk"
    assert numbers == list(range(len(numbers)))
    assert last.number("n") in numbers
    await fleet.finish(guest)


async def test_a_record_beside_a_slow_reader(fleet: Fleet) -> None:
    """QEMU records characters twice that find the socket full; what the guest has said is still read as it was."""
    guest = await fleet.boot(VDA, load="esd.mode=idle")
    seen, start = guest.described(), len(guest.console.lines)
    with socket.socket(socket.AF_UNIX) as terminal:
        terminal.connect(str(guest.console_socket(guest.machine)))
        terminal.sendall(b"disks\n" * ASKED)
        for _ in range(ASKED):
            await _read_slowly(guest, terminal)
    rows = [dict(line.values) for line in guest.console.lines[start:] if line.word == "disk"]
    assert rows == [seen["vda"]] * ASKED
    await fleet.finish(guest)


async def _read_slowly(guest: Guest, terminal: socket.socket) -> None:
    """Until the guest has answered: each time all that is in the socket, which has been full for a while by then."""
    terminal.setblocking(False)
    answer = asyncio.create_task(guest.console.wait("disks"))
    while not answer.done():
        await asyncio.wait([answer], timeout=0.02)
        with suppress(BlockingIOError):
            terminal.recv(1 << 16)
    await answer


async def test_listed_by_whoever_started_it(fleet: Fleet) -> None:
    guest = await fleet.idle(VDA)
    fleet.b.run(
        "sh", "-c", "qemu-system-x86_64 -name other -machine none -display none -nodefaults </dev/null >&- 2>&- &"
    )
    async with asyncio.timeout(60):
        while not fleet.b.qemus("other"):
            await asyncio.sleep(0.1)
    async with open_hosts() as hosts:
        seen = await listing.list_all(hosts, HOSTS)
    assert [(each.host, each.name, each.keeper) for each in seen] == [
        ("hostA", "vm1", listing.Keeper.OURS),
        ("hostB", "other", listing.Keeper.OTHER),
    ]
    fleet.b.sweep_processes("other")
    await fleet.finish(guest, settle=False)


async def test_what_qemu_refuses_is_told_in_its_words(fleet: Fleet) -> None:
    """QEMU makes its monitors first and looks at the disks later: that it answers is not yet that it runs."""
    drive = Drive("vda", 7, "a.qcow2", size=MIB, chain=1)
    drive.make(fleet.a)
    fleet.a.remove("/srv/a.qcow2.base")
    with pytest.raises(EsdError, match=r"Could not open '/srv/a\.qcow2\.base'") as error:
        await Guest("vm1", fleet.a, [drive]).start(None, made=True)
    assert error.value.host == "hostA"
    fleet.check_empty()


async def test_refused_before_anything_is_touched(fleet: Fleet) -> None:
    guest = await fleet.idle(VDA)
    fleet.a.path("/srv/text.qcow2").write_text("no image at all")
    before = fleet.snapshot()
    with pytest.raises(RefusedError, match=r"hostA: a guest called vm1 runs there"):
        await guest.start(None, made=True)
    with pytest.raises(RefusedError, match=r"hostA: there is no image /srv/none\.raw"):
        await Guest("vm2", fleet.a, [Drive("vda", 7, "none.raw")]).start(None, made=True)
    with pytest.raises(RefusedError, match=r"hostA: /srv/text\.qcow2 is not a qcow2"):
        await Guest("vm2", fleet.a, [Drive("vda", 7, "text.qcow2")]).start(None, made=True)
    await fleet.unchanged(before)
    async with open_hosts() as hosts:
        with pytest.raises(RefusedError, match="hostA: vm1 runs"):
            await guests.forget(hosts, "vm1", HOSTS)
        with pytest.raises(RefusedError, match="hostB: vm1 does not run"):
            await guests.kill(hosts, "vm1", "hostB")


async def test_a_guest_that_has_moved_is_not_started_where_it_was(fleet: Fleet) -> None:
    """Neither under its name nor, by its image, under another one."""
    guest = await fleet.idle(VDA)
    told = await guest.migrate(fleet.b, Handler.REDIRECT)
    with pytest.raises(RefusedError, match="hostA: vm1 has moved to hostB"):
        await Guest("vm1", fleet.a, [VDA]).start(None, made=True)
    with pytest.raises(RefusedError, match="there is no image"):
        await Guest("vm2", fleet.a, [VDA]).start(None, made=True)
    # Not even by its new name, as long as it is served.
    aside = f"{VDA.name}.moved-{told.id}"
    with pytest.raises(EsdError, match="lock"):
        await Guest("vm2", fleet.a, [Drive("vda", 7, aside, size=VDA.size)]).start(None, made=True)
    note = json.loads(fleet.a.path(f"/srv/{aside}.json").read_text())
    told_there = {key: note[key] for key in ("vm", "suid", "generation", "target", "was")}
    assert told_there == {"vm": "vm1", "suid": guest.suid(VDA), "generation": 1, "target": "hostB", "was": VDA.path}
    await fleet.finish(guest)
    with pytest.raises(RefusedError, match="there is no image"):
        await Guest("vm2", fleet.a, [VDA]).start(None, made=True)


async def test_an_overlay_alone_cannot_be_opened(fleet: Fleet) -> None:
    """Where data is missing it would read as zeroes: so it fails instead, for QEMU and for its tools."""
    guest = await fleet.idle(VDA)
    await guest.migrate(fleet.b, Handler.ON_DEMAND)
    member = str(guest.member(VDA))
    async with open_hosts() as hosts:
        await guests.kill(hosts, "vm1", "hostB")
    done = fleet.b.run(
        "qemu-io",
        "-f",
        "qcow2",
        "-r",
        "-c",
        "read 0 512",
        f"/var/lib/qemu-esd/disks/{member.rpartition('/')[2]}",
        check=False,
    )
    assert done.returncode != 0
    assert "read 512/512" not in done.stdout
