"""A guest under its load: started, asked, moved, ended. It knows where it runs, and the test tells it when it moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from images.build import KERNEL_WORDS, GuestImage
from images.console import STATUS, LoadLine
from images.pattern import MIB
from qemu_esd import api, guests, view
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.hypervisors.cmdline.disk_spec import disks_from
from qemu_esd.hypervisors.cmdline.spec import GuestSpec
from qemu_esd.model.host import HostPaths, guest_sockets
from qemu_esd.model.policy import Handler
from qemu_esd.model.request import Request
from qemu_esd.model.suid import suid_of
from qemu_esd.phases.context import Reporter
from tests.integration.support.console import Console, Terminal
from tests.integration.support.drives import Drive
from tests.integration.support.machine import RUN, STATE, Machine, Process, kill

PATHS = HostPaths(STATE, RUN)
# Not a multiple of 256 KiB: where it is one, QEMU 7.2 to 8.2 with TCG loses writes to memory while it migrates
# (measured on 7.2: 1 move in 12; a shortcut for aligned bitmaps forgets to reset the TLB). KVM does not mind.
MEMORY = 128 * MIB + (8 << 10)
DEFAULT_LOAD = "esd.mode=verify esd.rate=200"
MENDED_SECONDS = 180.0
# A test waits for the load's next line again and again.
OFTEN = "esd.every=100"
# A load that does so many operations goes on, and one that does not within so many seconds of the guest stands still.
OPERATIONS, PATIENCE = 40, 20
GOOD = ("err", "bad", "absent")


class Guest:
    """`machine`: where it runs. `lines`: what it has said."""

    def __init__(self, name: str, machine: Machine, drives: Sequence[Drive]) -> None:
        self.name = name
        self.machine = machine
        self.drives = tuple(drives)
        self.generation = 0
        self.console = Console()
        self._terminal: Terminal | None = None
        # Socket and record of the console of a guest that somebody else has started, on any host it comes to.
        self.foreign_console: tuple[str, str] | None = None

    async def start(
        self, image: GuestImage | None, load: str = DEFAULT_LOAD, *, made: bool = False, **more: Any
    ) -> None:
        """Make its disks (but those that are `made`) and start it as `vm run` does. Without `image` it has no load."""
        for drive in () if made else self.drives:
            drive.make(self.machine)
        spec = GuestSpec(self.name, disks_from(drive.text for drive in self.drives), memory=MEMORY, **more)
        if image is not None:
            options = " ".join([KERNEL_WORDS, load, *(drive.option for drive in self.drives)])
            spec = replace(spec, kernel=str(image.kernel), initrd=str(image.initrd), append=options)
        async with open_hosts() as hosts:
            await guests.run(hosts, spec, self.machine.name)
        await self.settle_in(booted=image is not None)

    async def settle_in(self, booted: bool) -> None:
        """Listen to it where it is now; the first time, wait until its load is ready."""
        self.listen()
        if booted:
            await self.console.wait("ready")

    # ---- its console

    def listen(self) -> None:
        """Follow what it says where it is now."""
        own = PATHS.console_log(self.name, self.generation)
        self.console.follow(self.machine.path(self.foreign_console[1] if self.foreign_console else own))

    async def ask(self, command: str, answer: str | None = None, seconds: float = 60.0) -> LoadLine:
        """Type `command`, and return the line that answers it."""
        self.type(command)
        return await self.console.wait(answer or command.split()[0], seconds)

    def type(self, command: str) -> None:
        if self._terminal is None:
            self._terminal = self.terminal_on(self.machine)
        self._terminal.type(command)

    def terminal_on(self, machine: Machine) -> Terminal:
        """Somebody at its console on `machine`; there can be one only."""
        return Terminal(self.console_socket(machine))

    def console_socket(self, machine: Machine) -> Path:
        own = guest_sockets(PATHS, self.name).console
        return machine.path(self.foreign_console[0] if self.foreign_console else own)

    def sit_at(self, terminal: Terminal) -> None:
        """From now on type there."""
        self.leave_terminal()
        self._terminal = terminal

    async def status(self) -> LoadLine:
        """The next line of the load that has not been said yet."""
        self.console.skip()
        return await self.console.wait(STATUS)

    def last_status(self) -> LoadLine:
        return next(line for line in reversed(self.console.lines) if line.word == STATUS)

    async def pause(self) -> None:
        """No operation is in flight afterwards, and what was written is flushed."""
        await self.ask("pause", "paused")
        await self.sync()

    async def resume(self) -> None:
        await self.ask("resume", "resumed")

    async def sync(self) -> None:
        assert (await self.ask("sync", "synced")).number("err") == 0

    async def recheck(self) -> int:
        """All that is on the disks is right; returns the number of blocks."""
        line = await self.ask("recheck all")
        assert [line.number(key) for key in GOOD] == [0, 0, 0], (dict(line.values), self.faults())
        return line.number("ok")

    async def is_well(self) -> None:
        """The load goes on, and has met neither an error nor wrong content since the start.

        A link that comes back may take a while: the guest waits then, and that is no error.
        """
        await self.goes_on(GOOD)

    async def goes_on(self, good: Sequence[str], operations: int = OPERATIONS) -> None:
        """The load does so many operations, and counts nothing of `good`."""
        now = before = await self.status()
        while now.number("ops") < before.number("ops") + operations:
            now = await self.status()
            assert [now.number(key) for key in good] == [0] * len(good), self.faults()
            waited = now.number("t") - before.number("t")
            assert waited <= PATIENCE, f"the load stands still: {dict(before.values)}, {dict(now.values)}"

    def faults(self) -> list[dict[str, str]]:
        return [dict(line.values) for line in self.console.lines if line.word in ("bad", "err")]

    async def disks(self) -> dict[str, dict[str, str]]:
        """What the guest sees of its disks now, by the names that it gives them."""
        start = len(self.console.lines)
        await self.ask("disks")
        return self.described(start)

    def described(self, start: int = 0) -> dict[str, dict[str, str]]:
        """What it has said of its disks, of the lines from `start` on."""
        rows = [line.values for line in self.console.lines[start:] if line.word == "disk"]
        return {row["name"]: dict(row) for row in rows}

    async def sees(self, before: dict[str, dict[str, str]]) -> None:
        """Its disks are what they were: name, size, blocks, serial, place."""
        assert await self.disks() == before

    async def crc(self, drive: Drive) -> int:
        """Of the whole disk, as the guest reads it now. Its content is verified on the way."""
        line = await self.ask(f"read {drive.guest_name} 0 {drive.size}")
        assert (line.number("errno"), line.number("bad")) == (0, 0), dict(line.values)
        return int(line.values["crc"], 16)

    async def read(self, drive: Drive, offset: int, length: int) -> int:
        """Read a range, which must be right. Returns the errno. It may have to wait for what somebody mends."""
        line = await self.ask(f"read {drive.guest_name} {offset} {length}", seconds=MENDED_SECONDS)
        assert line.number("bad") == 0, self.faults()
        return line.number("errno")

    async def write(self, drive: Drive, offset: int, length: int) -> int:
        """Write stamps. Returns the errno."""
        line = await self.ask(f"write {drive.guest_name} {offset} {length}", seconds=MENDED_SECONDS)
        return line.number("errno")

    # ---- its life

    async def migrate(
        self, target: Machine, handler: Handler, *, until_settled: bool = True, report: Reporter = print, **words: Any
    ) -> view.MigrationView:
        """Move it as `migrate` does, and follow it."""
        request = Request(self.name, target.name, handler, source=self.machine.name, **words)
        told = await api.migrate(request, report, until_settled=until_settled)
        self.arrived(target)
        return told

    def arrived(self, target: Machine) -> None:
        self.leave_terminal()
        self.machine = target
        self.generation += 1
        self.listen()

    def leave_terminal(self) -> None:
        """The QEMU that it was connected to has ended."""
        if self._terminal is not None:
            self._terminal.leave()
            self._terminal = None

    async def look(self) -> view.GuestView:
        async with api.open_guest(self.name, self.machine.name) as station:
            return await view.of_station(station)

    def qemu(self) -> Process:
        return self.machine.qemu(self.name)

    def kill(self) -> None:
        """As if its QEMU had crashed."""
        kill(self.qemu().pid)

    async def power_off(self) -> None:
        """The guest ends by itself; returns when its QEMU is gone."""
        async with open_hosts() as hosts:
            await guests.kill(hosts, self.name, self.machine.name)
        self.leave_terminal()

    # ---- its images, as paths on the machine

    def member(self, drive: Drive) -> Path:
        """The image of a disk where the guest is now, after it has moved."""
        return self.machine.real(PATHS.overlay(self.name, self.suid(drive), self.generation))

    def suid(self, drive: Drive) -> str:
        return drive.serial or suid_of(self.name, drive.id)
