"""A guest that was moved with --read-errors report: what only the source could have answered is its own error."""

from __future__ import annotations

import asyncio
from errno import EIO

import pytest

from images.pattern import MIB
from qemu_esd.model.policy import Handler, ReadErrors
from tests.faults import report
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.inside import tell
from tests.integration.support.links import cut

pytestmark = pytest.mark.lab

BACK_SECONDS = 120.0
ABSENT = (5 * MIB, 4096)


@report.thorough
async def test_a_dead_link_is_the_guests_own_error(fleet: Fleet) -> None:
    """It is not paused, and reads again when the link is back."""
    vda = Drive("vda", 7, size=16 * MIB)
    guest = await fleet.boot(vda, load="esd.mode=idle")
    await guest.migrate(fleet.b, Handler.REDIRECT, read_errors=ReadErrors.REPORT)
    async with cut("hostA", "hostB"):
        assert await guest.read(vda, *ABSENT) == EIO
        assert (await tell(guest, "query-status"))["status"] == "running"
    async with asyncio.timeout(BACK_SECONDS):
        while await guest.read(vda, *ABSENT) != 0:
            await asyncio.sleep(0.5)
    report.note(report.Line("link between the hosts cut, reported", "handed over", "done", "nothing", "hostB"))
    await fleet.finish(guest)
