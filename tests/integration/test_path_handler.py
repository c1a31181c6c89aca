"""The path handler: it outlives the controller and the source's QEMU, and its own death."""

from __future__ import annotations

import pytest

from images.pattern import MIB
from qemu_esd.model.plan import Transport
from qemu_esd.model.policy import Handler
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.machine import ended, kill

pytestmark = pytest.mark.lab

DRIVES = (Drive("vda", 7), Drive("vdb", 9, "b.qcow2", size=24 * MIB, fill="holes", chain=1))


@pytest.mark.parametrize("transport", [Transport.TLS, Transport.SSH])
async def test_killed_under_load(fleet: Fleet, transport: Transport) -> None:
    """It comes back by itself with the image that it has taken, and the guest goes on without an error."""
    guest = await fleet.boot(*DRIVES)
    await guest.migrate(fleet.b, Handler.REDIRECT, transport=transport)
    for _ in range(2):
        await guest.is_well()
        (handler,) = fleet.a.path_handlers()
        kill(handler.pid)
        await ended(handler.pid)
        await guest.is_well()
    assert fleet.a.path_handlers()[0].pid != handler.pid
    await guest.pause()
    await guest.recheck()
    await fleet.finish(guest)


async def test_a_tunnel_that_is_killed_comes_back(fleet: Fleet) -> None:
    guest = await fleet.boot(*DRIVES)
    await guest.migrate(fleet.b, Handler.REDIRECT, transport=Transport.SSH)
    (tunnel,) = [process for process in fleet.b.processes() if process.argv[0] == "ssh"]
    kill(tunnel.pid)
    await ended(tunnel.pid)
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    await fleet.finish(guest)
