"""The way home: an image that was left there and is still what it was spares all that has not changed since."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import api, guests
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import State
from tests.integration.support import content
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.machine import Machine

pytestmark = pytest.mark.lab

LOAD = "esd.mode=verify esd.rate=200 esd.area=1M"
CLUSTER = 16 << 10


async def away(fleet: Fleet, *drives: Drive, settle: bool = True) -> Guest:
    """A guest that was moved from A to B, and goes on writing there."""
    guest = await fleet.boot(*drives, load=LOAD)
    await guest.migrate(fleet.b, Handler.BACKGROUND if settle else Handler.REDIRECT)
    await guest.is_well()
    return guest


def base(guest: Guest, drive: Drive) -> Path | None:
    """The old image of a disk under the name by which the guest needs it now."""
    found = list(guest.machine.real("/srv").glob(f"{drive.name}.base-????????"))
    assert len(found) < 2
    return found[0] if found else None


def at_home(guest: Guest, drive: Drive) -> content.Node:
    """What the guest's disk is made of now, by the headers of its images alone."""
    return content.image(guest.member(drive), "qcow2")


async def held_by(machine: Machine, guest: Guest, drive: Drive, tmp_path: Path) -> Path:
    """A raw copy of what a host holds of a guest that has just left it."""
    return tmp_path


async def is_whole(fleet: Fleet, guest: Guest) -> None:
    """All that the guest has written is there, and nobody else is needed."""
    settled = await guest.look()
    assert (settled.state, settled.upstream, settled.link) == (State.SETTLED, (), "none")
    assert [machine.path_handlers() for machine in fleet.machines] == [(), (), ()]
    await guest.is_well()
    await guest.pause()
    await guest.recheck()


async def test_only_what_has_changed_goes_home(fleet: Fleet, tmp_path: Path) -> None:
    """Raw, qcow2, and qcow2 over others; the last cluster of one is a part of one."""
    drives = (
        Drive("vda", 7),
        Drive("vdb", 9, "b.qcow2", size=24 * MIB + 5 * 512, fill="holes"),
        Drive("vdc", 11, "c.qcow2", size=16 * MIB, chain=2),
    )
    guest = await away(fleet, *drives)
    for drive in drives:
        assert await guest.write(drive, 8 * MIB, 64 << 10) == 0

    await guest.migrate(fleet.a, Handler.ON_DEMAND, until_settled=False)
    before = fleet.b.sent_bytes(fleet.a)
    settled = await api.settle_guest("vm1", "hostA", lambda *_: None)

    assert fleet.b.sent_bytes(fleet.a) - before < sum(drive.size for drive in drives) // 4
    assert settled.left_behind == ("hostA", "hostB")
    assert all(base(guest, drive) for drive in drives)
    await is_whole(fleet, guest)
    await api.release_guest("vm1", "hostA")
    await guest.recheck()
    await fleet.finish(guest)
