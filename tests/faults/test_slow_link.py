"""A link that carries little: all takes longer, and nothing else is different."""

from __future__ import annotations

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.model.plan import Transport
from qemu_esd.model.policy import Handler
from tests.faults import report
from tests.faults.rows import marked_guest, marks
from tests.integration.support.fleet import Fleet
from tests.integration.support.links import slow

pytestmark = [pytest.mark.lab, report.thorough]

# Bytes per second: 16 and 40 Mbit/s, below what the guest's own reads would use.
RATES = (2 * MIB, 5 * MIB)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("transport", [Transport.TLS, Transport.SSH])
@pytest.mark.parametrize("rate", RATES)
async def test_a_link_that_carries_little(fleet: Fleet, rate: int, transport: Transport) -> None:
    guest, before = await marked_guest(fleet)
    async with slow("hostA", "hostB", rate):
        told = await guest.migrate(fleet.b, Handler.BACKGROUND, transport=transport)
        assert told.state == "settled"
        await guest.is_well()
    await api.settle_guest("vm1", "hostB", lambda *_: None)
    assert await marks(guest) == before
    await guest.pause()
    await guest.recheck()
    report.note(report.Line(f"link of {8 * rate // 10**6} Mbit/s, {transport}", "all", "done", "nothing", "hostB"))
    await fleet.finish(guest)
