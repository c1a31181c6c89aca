"""A guest that was started before the host's QEMU package was upgraded, as most guests are after a security update."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.model.policy import Handler
from qemu_esd.model.request import Request
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.inside import qemu_facts
from tests.integration.support.machine import Machine

pytestmark = pytest.mark.lab

STAMP = re.compile(rb"(?<=qemu_stamp_)[0-9a-f]{40}")


async def test_its_modules_are_of_another_build(fleet: Fleet) -> None:
    """QEMU aborts when it is asked for something that makes it load them all."""
    guest = await fleet.idle(Drive("vda", 7, size=8 * MIB))
    inside = await qemu_facts(guest)
    with modules_of_another_build(fleet.a):
        proposal = await api.propose(Request("vm1", "hostB", Handler.REDIRECT, source="hostA"))
        assert proposal.problems == ()
        assert await qemu_facts(guest) == inside
        await guest.migrate(fleet.b, Handler.REDIRECT)
    await fleet.finish(guest)


@contextmanager
def modules_of_another_build(machine: Machine) -> Iterator[None]:
    """Every build of QEMU has a stamp of its own, which it wants to see in a module."""
    (real,) = machine.path("/usr/lib").glob("*-linux-gnu/qemu")
    inside, other = f"/usr/lib/{real.parent.name}/qemu", "/var/log/modules"
    machine.path(other).mkdir()
    for module in real.glob("*.so"):
        (machine.path(other) / module.name).write_bytes(STAMP.sub(b"0" * 40, module.read_bytes()))
    machine.run("mount", "--bind", other, inside)
    try:
        yield
    finally:
        machine.run("umount", "--lazy", inside)
        machine.run("rm", "-r", other)
