"""Hot first: in a background move, what the guest touches is here long before what it does not touch."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import mover_process, nbd
from qemu_esd.errors import UnfinishedError
from qemu_esd.graph import bad_sectors, names
from qemu_esd.graph.handlers import overlays
from qemu_esd.model.host import guest_sockets
from qemu_esd.model.pace import Bandwidth
from qemu_esd.model.policy import Handler
from qemu_esd.view import MigrationView
from tests.integration.support import content
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import PATHS, Guest
from tests.integration.support.inside import tell
from tests.integration.support.links import slow
from tests.integration.support.machine import SRV
from tests.support.bad_disk import Fault, bad_disk

pytestmark = pytest.mark.lab

# In order, the mirror comes to the hot part when all else is there.
VDA = Drive("vda", 7, size=128 * MIB)
HOT = nbd.Range(VDA.size - 8 * MIB, 8 * MIB)
# At the latest when so much is here the hot part is; a busy machine takes its time to look.
SOON = VDA.size - 40 * MIB
# Bytes per second: the whole disk takes half a minute.
RATE = 4 * MIB
COMES_SECONDS = 300.0


def load(*hot: nbd.Range) -> str:
    parts = ",".join(f"{part.length}@{part.offset}" for part in hot)
    return f"esd.mode=verify esd.rate=200 esd.mix=20/20/60 esd.area=512k esd.hot={parts}"


async def test_what_the_guest_touches_comes_first(fleet: Fleet, tmp_path: Path) -> None:
    guest = await fleet.boot(VDA, load=load(HOT))
    async with slow("hostA", "hostB", RATE):
        moving = move(guest, fleet)
        assert await local_when_here(fleet, guest, HOT) < SOON
    assert (await moving).state == "settled"
    await is_whole(guest, tmp_path)
    await leaves_nothing(guest)
    await fleet.finish(guest)
    content.check_standalone(guest.member(VDA))


async def test_under_a_limit_too(fleet: Fleet, tmp_path: Path) -> None:
    """The link would carry all of it at once: what is hot comes within the limit, and so before the rest."""
    guest = await fleet.boot(VDA, load=load(HOT))
    moving = move(guest, fleet, bandwidth=RATE)
    assert await local_when_here(fleet, guest, HOT) < SOON
    assert (await moving).state == "settled"
    await is_whole(guest, tmp_path)
    await leaves_nothing(guest)
    await fleet.finish(guest)


async def test_connections_break_while_it_comes(fleet: Fleet, tmp_path: Path) -> None:
    guest = await fleet.boot(VDA, load=load(HOT))
    async with slow("hostA", "hostB", RATE):
        moving = move(guest, fleet)
        breaking = asyncio.ensure_future(break_connections(fleet, moving))
        try:
            assert await local_when_here(fleet, guest, HOT) < SOON
        finally:
            breaking.cancel()
    assert (await moving).state == "settled"
    await is_whole(guest, tmp_path)
    await fleet.finish(guest)


async def test_a_sector_of_it_is_bad(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest does not read it, but we do: it is missing at the end, and nothing else."""
    monkeypatch.setattr(bad_sectors, "AGAIN_SECONDS", 1)
    bad = HOT.offset + 3 * MIB
    before, behind = nbd.Range(HOT.offset, 2 * MIB), nbd.Range(HOT.offset + 4 * MIB, 4 * MIB)
    with bad_disk(fleet.a, SRV) as disk:
        guest = await fleet.boot(VDA, load=load(before, behind))
        disk.fail(Fault("read", VDA.name, bad, bad + 512))
        async with slow("hostA", "hostB", RATE):
            moving = move(guest, fleet)
            assert await local_when_here(fleet, guest, before, behind) < SOON
        with pytest.raises(UnfinishedError) as moved:
            await moving
        assert f"of vda cannot be brought over: {overlays.CLUSTER} bytes from byte {bad} on" in str(moved.value)
        guest.arrived(fleet.b)
        await guest.is_well()
        disk.mend()
        async with asyncio.timeout(60):
            while "0 sectors of" not in fleet.a.logs():
                await asyncio.sleep(0.2)
        assert (await say("settle", "vm1")).status == 0
        await is_whole(guest, tmp_path)
        await fleet.finish(guest)


async def test_who_brings_it_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    """The job goes on in its own order; `policy` and `settle` clear away what is left, and begin anew."""
    guest = await fleet.boot(VDA, load=load(HOT))
    async with slow("hostA", "hostB", RATE):
        assert (await say("migrate", "vm1", "hostB", "--policy", "background", "--detach")).status == 0
        guest.arrived(fleet.b)
        assert await local_when_here(fleet, guest, nbd.Range(HOT.offset, MIB)) < SOON
        mover = mover_process.find("vm1")
        assert mover is not None
        os.kill(mover.pid, signal.SIGKILL)
        assert (await say("policy", "vm1", "redirect")).status == 0
        assert (await say("policy", "vm1", "background")).status == 0
        assert await local_when_here(fleet, guest, HOT) < SOON
    assert (await say("settle", "vm1")).status == 0
    await is_whole(guest, tmp_path)
    await leaves_nothing(guest)
    await fleet.finish(guest)


def move(guest: Guest, fleet: Fleet, bandwidth: Bandwidth = None) -> asyncio.Task[MigrationView]:
    """The whole move, followed until it is settled."""
    moving = guest.migrate(fleet.b, Handler.BACKGROUND, report=lambda _: None, bandwidth=bandwidth)
    return asyncio.create_task(moving)


async def local_when_here(fleet: Fleet, guest: Guest, *hot: nbd.Range) -> int:
    """How many bytes of the disk are on host B in the moment in which all of `hot` is."""
    socket = fleet.b.path(guest_sockets(PATHS, guest.name).nbd)
    async with asyncio.timeout(COMES_SECONDS):
        while True:
            here = await local(socket, guest.suid(VDA))
            if all(any(part.offset <= h.offset and h.end <= part.end for part in here) for h in hot):
                return sum(part.length for part in here)
            await asyncio.sleep(0.2)


async def local(socket: Path, suid: str) -> list[nbd.Range]:
    """What the overlay itself holds; nothing as long as nobody has opened the window that shows it."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
        async with nbd.open(reader, writer, f"{suid}.own", (nbd.ALLOCATION_DEPTH,)) as client:
            maps = await client.map()
    except (OSError, nbd.NbdConnectionError):
        return []
    return [nbd.Range(each.offset, each.length) for each in maps[nbd.ALLOCATION_DEPTH] if each.flags == 1]


async def break_connections(fleet: Fleet, moving: asyncio.Task[MigrationView]) -> None:
    """Once a second, in the middle of requests."""
    while not moving.done():
        for where in fleet.a.listening():
            fleet.b.run("ss", "-K", "state", "established", "dport", "=", f":{where.rpartition(':')[2]}")
        await asyncio.sleep(1)


async def is_whole(guest: Guest, folder: Path) -> None:
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    flat = content.flatten(content.image(guest.member(VDA), "qcow2"), folder / "flat")
    written = content.check_content(flat, VDA)
    assert written
    assert all(HOT.offset <= at < HOT.end for at in written)


async def leaves_nothing(guest: Guest) -> None:
    nodes = await tell(guest, "query-named-block-nodes", flat=True)
    assert names.own(guest.suid(VDA)) not in [node["node-name"] for node in nodes]
