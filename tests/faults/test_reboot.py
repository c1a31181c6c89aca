"""The source host is rebooted while a guest elsewhere reads from it: `host restore` brings its exports back."""

from __future__ import annotations

import asyncio

import pytest

from images.pattern import MIB
from qemu_esd.hosts import lab
from qemu_esd.model.plan import Transport
from qemu_esd.model.policy import Handler
from tests.faults import report
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.inside import tell
from tests.integration.support.machine import Machine, ended, kill

pytestmark = pytest.mark.lab

VDA, VDB = Drive("vda", 7, size=16 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1)
READS = "esd.mode=verify esd.rate=200 esd.mix=10/0/90"


@pytest.mark.parametrize("transport", [Transport.TLS, Transport.SSH])
async def test_the_source_is_rebooted(own_fleet: Fleet, transport: Transport) -> None:
    guest = await own_fleet.boot(VDA, VDB, load=READS)
    await guest.migrate(own_fleet.b, Handler.REDIRECT, transport=transport)
    await guest.is_well()
    await reboot(own_fleet)
    assert own_fleet.a.path_handlers() == ()
    for outcome in ("started", "ran already"):
        told = await say("host", "restore", "hostA")
        assert (told.status, f"path-{(await guest.look()).id}: {outcome}" in told.out) == (0, True), told
    assert len(own_fleet.a.path_handlers()) == 1
    async with asyncio.timeout(60):
        while not (await tell(guest, "query-status"))["running"]:
            await asyncio.sleep(0.5)
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    report.note(report.Line("source host rebooted", "handed over", "-", "host restore (0)", "hostB"))
    await own_fleet.finish(guest)


async def reboot(fleet: Fleet) -> None:
    """As if by the power switch: all that ran is gone, and all in /run."""
    init = fleet.a.lab.init
    assert init is not None
    kill(init.pid)
    await ended(init.pid)
    hosts = (await lab.up(3)).lab.hosts
    fleet.a = Machine(hosts[0])
    fleet.machines = (fleet.a, fleet.b, fleet.c)


async def test_there_is_nothing_to_restore(fleet: Fleet) -> None:
    told = await say("host", "restore", "hostC")
    assert (told.status, told.out) == (0, "hostC serves nothing, and reads from nowhere\n")
