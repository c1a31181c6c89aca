"""The hosts that a test has, and the guests that it starts there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from images.build import GuestImage
from qemu_esd import api, guests
from qemu_esd.hosts.connect import open_hosts
from tests.integration.support.drives import Drive
from tests.integration.support.guest import DEFAULT_LOAD, OFTEN, Guest
from tests.integration.support.machine import Machine


class Fleet:
    """Hosts A, B and C, empty when a test begins."""

    def __init__(self, machines: Sequence[Machine], image: GuestImage) -> None:
        self.machines = tuple(machines)
        self.a, self.b, self.c = machines
        self.image = image

    async def boot(self, *drives: Drive, name: str = "vm1", load: str = DEFAULT_LOAD, **more: Any) -> Guest:
        """A guest under load on host A."""
        guest = Guest(name, self.a, drives)
        await guest.start(self.image, f"{load} {OFTEN}", **more)
        return guest

    async def idle(self, *drives: Drive, name: str = "vm1", **more: Any) -> Guest:
        """A guest on host A that stays in its firmware: there in no time, and touches no disk."""
        guest = Guest(name, self.a, drives)
        await guest.start(None, **more)
        return guest

    async def finish(self, *those: Guest, settle: bool = True) -> None:
        """The end of every story: settle, release, stop, forget, and nothing is left on any host."""
        for guest in those:
            if settle:
                await api.settle_guest(guest.name, guest.machine.name, lambda *_: None)
            await api.release_guest(guest.name, guest.machine.name)
            async with open_hosts() as hosts:
                await guests.kill(hosts, guest.name, guest.machine.name)
                guest.leave_terminal()
                await guests.forget(hosts, guest.name, [machine.name for machine in self.machines])
        self.check_empty()

    def snapshot(self) -> dict[str, object]:
        """All on all hosts by which a test sees that something was touched."""
        return {f"{each.name} {key}": value for each in self.machines for key, value in each.snapshot().items()}

    async def unchanged(self, before: dict[str, object]) -> None:
        """The hosts are as they were; what was only asked of them may take a moment to end."""
        for _ in range(50):
            now = self.snapshot()
            changed = [
                (key, before.get(key), now.get(key)) for key in {**before, **now} if before.get(key) != now.get(key)
            ]
            if not changed:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"changed: {changed}")

    def logs(self) -> str:
        """What QEMUs, path handlers and the like have said, for the report of a test that failed."""
        return "\n".join(each.logs() for each in self.machines)

    def check_empty(self) -> None:
        """Nothing of ours is left anywhere, but for images."""
        left = [f"{machine.name}: {what}" for machine in self.machines for what in machine.leftovers()]
        assert not left, "left over:\n" + "\n".join(left)

    def sweep(self) -> None:
        for machine in self.machines:
            machine.sweep()
