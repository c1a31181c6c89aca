"""The controller has no room for its journal: it does nothing that is not written down, and says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd.errors import EsdError
from qemu_esd.journal import shelf, store
from qemu_esd.model.policy import Handler
from tests.faults import report
from tests.faults.report import thorough
from tests.faults.rows import MOMENTS, Outcome, What, led_by_status
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.inside import qemu_facts, running_on
from tests.integration.test_rollback import places
from tests.support.small_disk import SmallDisk, small_disk_here

pytestmark = [pytest.mark.lab, thorough]

VDA, VDB = Drive("vda", 7, size=16 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1)
LOAD = "esd.mode=verify esd.rate=100 esd.area=1M esd.spread=0"


@pytest.fixture
def room(fleet: Fleet) -> Iterator[SmallDisk]:
    with small_disk_here(Path(os.environ["QEMU_ESD_STATE"]), "1M") as disk:
        yield disk


async def test_it_does_not_begin_what_it_cannot_write_down(fleet: Fleet, room: SmallDisk) -> None:
    guest = await fleet.boot(VDA, VDB, load=LOAD)
    before, inside = places(fleet), await qemu_facts(guest)
    room.fill()
    refused = await say("migrate", "vm1", "hostB", "--from", "hostA", "--policy", "on-demand", "--yes")
    assert refused.status == 3, refused
    assert "the journal cannot be written: No space left on device" in refused.err
    assert f"make room for {store.home()}" in refused.err
    assert shelf.all_ids() == ()
    assert (places(fleet), await qemu_facts(guest)) == (before, inside)
    told = await say("status", "vm1")
    assert (told.status, "this is a bug" in told.err) == (0, False), told
    room.make_room()
    report.note(report.Line("controller's disk full", "before", f"refused ({refused.status})", "nothing", "hostA"))
    await guest.is_well()
    await fleet.finish(guest, settle=False)


# Later what is left to be written goes into the page that the journal has already.
@pytest.mark.parametrize("moment", ["prepared", "memory moves", "stopped", "committed", "running"])
async def test_it_cannot_go_on_writing(fleet: Fleet, room: SmallDisk, moment: str) -> None:
    """Then is done what it says, and what `status` says when there is room."""
    guest = await fleet.boot(VDA, VDB, load=LOAD)
    outcome, filled = Outcome(), list[What]()

    def hear(what: What) -> None:
        if not filled and MOMENTS[moment](what):
            filled.append(what)
            room.fill()

    try:
        await guest.migrate(fleet.b, Handler.BACKGROUND, report=hear, bandwidth=4 * MIB)
    except EsdError as error:
        outcome.said = f"{type(error).__name__} ({error.exit_status})"
        print(error, "|", error.hint)
        # What has no room, or what is to be given when there is some: how far the undoing came, pages decide.
        assert "No space left" in str(error)
        assert f"{store.home()}" in f"{error.hint}" or "qemu-esd rollback" in f"{error.hint}"
    assert filled, "the moment never came"
    assert outcome.said != "done"
    assert len(await running_on(fleet.machines, "vm1")) <= 1
    room.make_room()
    await led_by_status(fleet, guest, outcome)
    assert await running_on(fleet.machines, "vm1") == [guest.machine.name]
    await guest.is_well()
    recovered = ", ".join(outcome.commands) or "nothing"
    report.note(report.Line("controller's disk full", moment, outcome.said, recovered, guest.machine.name))
    await guest.pause()
    await guest.recheck()
    await fleet.finish(guest)
