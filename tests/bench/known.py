"""Guests that are known and shut off: one is moved for real, and what the product wrote of it is written of each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from qemu_esd import api, guests
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.hypervisors import records
from qemu_esd.journal import registry, store
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import GuestRecord, Planned
from qemu_esd.units import MIB
from tests.bench.stand import Stand
from tests.integration.support.drives import Drive
from tests.integration.support.guest import PATHS, Guest

NAME = "model"


async def make(stand: Stand, count: int) -> None:
    """`count` guests, half of them on each host, each with its record there and its journal and its line here."""
    async with _moved_guest(stand) as (story, record):
        async with open_hosts() as hosts:
            for number in range(count):
                name, machine = f"guest{number:03}", (stand.a, stand.b)[number % 2]
                _write_journal(story, name, f"{number:08x}")
                told = replace(record, name=name, migration=f"{number:08x}")
                await records.write_guest(await hosts.get(machine.name), PATHS, told)
                registry.remember(name, machine.name)


@asynccontextmanager
async def _moved_guest(stand: Stand) -> AsyncIterator[tuple[store.Story, GuestRecord]]:
    """A guest that has moved and settled: its journal and its record; it is gone when the context ends."""
    guest = Guest(NAME, stand.a, [Drive("vda", seed=7, size=MIB)])
    await guest.start(None)
    moved = await guest.migrate(stand.b, Handler.BACKGROUND, report=lambda _: None)
    await api.release_guest(NAME, stand.b.name)
    async with open_hosts() as hosts:
        record = await records.guest(await hosts.get(stand.b.name), PATHS, NAME)
        assert record is not None
        yield store.read(moved.id), record
        await guests.kill(hosts, NAME, stand.b.name)
        await guests.forget(hosts, NAME, [stand.a.name, stand.b.name])
    store.path_of(moved.id).unlink()


def _write_journal(story: store.Story, vm: str, id: str) -> None:
    process = replace(story.plan.guest.process, name=vm)
    plan = replace(story.plan, id=id, guest=replace(story.plan.guest, process=process))
    with store.begin(plan) as journal:
        for entry in story.entries:
            if not isinstance(entry, Planned):
                journal.append(entry)
