"""What is given to `resume` and was not broken off: nothing is touched, whatever has become of the guest since."""

from __future__ import annotations

import pytest

from images.pattern import MIB
from qemu_esd.journal import shelf
from qemu_esd.model.policy import Handler
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import PATHS
from tests.integration.support.machine import Machine

pytestmark = pytest.mark.lab


def record(machine: Machine) -> str:
    return machine.path(PATHS.guest_record("vm1")).read_text()


async def refused(fleet: Fleet, id: str, said: str) -> None:
    """By both words, and what is known of the guest is what it was."""
    before = [record(machine) for machine in (fleet.a, fleet.b)], shelf.newest_of("vm1"), shelf.all_ids()
    for word in ("resume", "rollback"):
        told = await say(word, id)
        assert (told.status, told.out) == (3, ""), told
        assert said in told.err or word == "rollback", told
    assert ([record(machine) for machine in (fleet.a, fleet.b)], shelf.newest_of("vm1"), shelf.all_ids()) == before


async def test_a_migration_after_which_the_guest_has_moved_again(fleet: Fleet) -> None:
    """There, back, and there again, while its data is still where it was. The last one alone may be gone on with."""
    guest = await fleet.boot(Drive("vda", 7, size=16 * MIB), load="esd.mode=verify esd.rate=100")
    first = await guest.migrate(fleet.b, Handler.ON_DEMAND)
    await guest.migrate(fleet.a, Handler.ON_DEMAND)
    last = await guest.migrate(fleet.b, Handler.ON_DEMAND)
    await refused(fleet, first.id, f"vm1 has moved again since migration {first.id}, by migration {last.id}")
    await guest.is_well()
    again = await say("resume", last.id)
    assert again.status == 0, again
    await guest.is_well()
    assert (await say("settle", "vm1")).status == 0
    await refused(fleet, last.id, f"migration {last.id} of vm1 was not broken off: it is settled")
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    await fleet.finish(guest)
