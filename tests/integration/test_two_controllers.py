"""Two controllers that know nothing of each other, as on two machines: hosts know the truth, one works at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd.model.policy import Handler
from tests.integration.support.commands import end, say, start
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.inside import qemu_facts, tell
from tests.integration.test_rollback import places

pytestmark = pytest.mark.lab

VDA = Drive("vda", 7, size=4 * MIB)
BUSY = "esd.mode=verify,dirty esd.rate=100 esd.dirty=32 esd.dirtyrate=0"


@contextmanager
def another(folder: Path) -> Iterator[None]:
    """A controller of its own."""
    mine = os.environ["QEMU_ESD_STATE"]
    os.environ["QEMU_ESD_STATE"] = str(folder / "another")
    try:
        yield
    finally:
        os.environ["QEMU_ESD_STATE"] = mine


async def test_a_guest_that_another_one_has_moved_is_found(fleet: Fleet, tmp_path: Path) -> None:
    guest = await fleet.idle(VDA)
    with another(tmp_path):
        await guest.migrate(fleet.b, Handler.REDIRECT)
    for command in (
        ("map", "vm1"),
        ("policy", "vm1", "on-demand"),
        ("settle", "--background-only", "vm1"),
        ("migrate", "vm1", "hostC", "--policy", "redirect"),
    ):
        done = await say(*command)
        assert done.status == 0, done
    guest.arrived(fleet.c)
    await fleet.finish(guest)


async def test_one_at_a_time(fleet: Fleet, tmp_path: Path) -> None:
    """The second one is refused, by name on the same machine, by the monitor from another; and touches nothing."""
    guest = await fleet.boot(VDA, load=BUSY)
    before, inside = places(fleet), await qemu_facts(guest)
    first = await start("migrate", "vm1", "hostB", "--policy", "redirect", "--downtime", "1")
    async with asyncio.timeout(60):
        while (await tell(guest, "query-migrate")).get("status") != "active":
            await asyncio.sleep(0.1)
    same = await say("migrate", "vm1", "hostC", "--policy", "redirect")
    assert (same.status, "another qemu-esd works on vm1" in same.err) == (3, True), same
    with another(tmp_path):
        other = await say("migrate", "vm1", "hostC", "--from", "hostA", "--policy", "redirect")
    assert (other.status, "held by another client" in other.err) == (3, True), other
    first.terminate()
    said = await end(first)
    assert (said.status, "as before" in said.err) == (1, True), said
    await guest.is_well()
    assert (places(fleet), await qemu_facts(guest)) == (before, inside)
    await fleet.finish(guest, settle=False)
