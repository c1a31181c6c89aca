"""What a real QEMU says of itself, and its migration into another one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from qemu_esd.errors import QemuError
from qemu_esd.hosts.local import LocalHost
from qemu_esd.qmp import machine, migrate
from qemu_esd.qmp.migrate import SOURCE_CAPABILITIES, TARGET_CAPABILITIES, Parameters
from qemu_esd.qmp.session import Session, open_session
from tests.support.qemu import option, qemu

UUID = "12345678-1234-1234-1234-123456789abc"
ENDED = frozenset({"completed", "failed", "cancelled"})


@asynccontextmanager
async def guest(folder: Path, name: str, *more: str) -> AsyncIterator[Session]:
    """A stopped guest of 32 MiB."""
    path = f"{folder}/{name}"
    plain = ("-machine", "q35", "-m", "32", "-uuid", UUID, "-qmp", f"unix:{option(path)},server=on,wait=off")
    async with qemu(*plain, *more), open_session(LocalHost(), path, name) as session:
        yield session


async def test_what_it_is(folder: Path) -> None:
    async with guest(folder, "vm") as session:
        assert await machine.version(session) >= (7, 2, 0)
        assert await machine.uuid(session) == UUID
        assert await machine.memory_size(session) == 32 << 20
        assert (await machine.current_machine_type(session)).startswith("pc-q35-")
        assert isinstance(await machine.has_tls_psk(session), bool)


async def test_it_runs_when_it_is_told_to(folder: Path) -> None:
    async with guest(folder, "vm") as session:
        assert await machine.run_state(session) == "prelaunch"
        await machine.cont(session)
        assert await machine.run_state(session) == "running"


async def test_objects_come_and_go(folder: Path) -> None:
    async with guest(folder, "vm") as session:
        before = await machine.objects(session)
        await machine.add_object(session, "secret", "key", {"data": "x"})
        assert await machine.objects(session) == before | {"key"}
        with pytest.raises(QemuError, match="key"):
            await machine.add_object(session, "secret", "key", {"data": "y"})
        await machine.delete_object(session, "key")
        assert await machine.objects(session) == before
        with pytest.raises(QemuError, match="key"):
            await machine.delete_object(session, "key")


async def test_settings_are_put_back_as_they_were(folder: Path) -> None:
    async with guest(folder, "vm") as session:
        before = (await migrate.capabilities(session), await migrate.parameters(session))
        assert not before[0]["return-path"]
        await migrate.set_capabilities(session, dict.fromkeys(SOURCE_CAPABILITIES, True))
        await migrate.set_parameters(session, Parameters("creds", "host", 1 << 20, 77))
        assert {name for name, on in (await migrate.capabilities(session)).items() if on} >= set(SOURCE_CAPABILITIES)
        assert await migrate.parameters(session) == Parameters("creds", "host", 1 << 20, 77)
        await migrate.set_capabilities(session, before[0])
        await migrate.set_parameters(session, before[1])
        assert (await migrate.capabilities(session), await migrate.parameters(session)) == before


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[Session, Session]]:
    """A guest that runs, and the QEMU that waits for it on `folder`/ram."""
    async with guest(folder, "a") as source, guest(folder, "b", "-incoming", "defer") as target:
        await migrate.set_capabilities(source, dict.fromkeys(SOURCE_CAPABILITIES, True))
        await migrate.set_capabilities(target, dict.fromkeys(TARGET_CAPABILITIES, True))
        await machine.cont(source)
        assert (await migrate.progress(source)).status == "none"
        await migrate.listen(target, f"unix:{folder}/ram")
        yield source, target


async def test_a_guest_moves_when_it_is_let_go_and_runs_when_it_is_told_to(folder: Path) -> None:
    async with pair(folder) as (source, target):
        with source.listening("MIGRATION") as events:
            await migrate.start(source, f"unix:{folder}/ram")
            assert await migrate.wait_status(events, frozenset({"pre-switchover"}) | ENDED, 20) == "pre-switchover"
            assert await machine.run_state(target) == "inmigrate"
            await migrate.go_on(source)
            assert await migrate.wait_status(events, ENDED, 20) == "completed"
        told = await migrate.progress(source)
        assert (told.status, told.remaining, told.error) == ("completed", 0, None)
        assert told.downtime_ms is not None
        assert told.transferred > 0
        assert told.total >= 32 << 20
        assert await machine.run_state_at_rest(source) == "postmigrate"
        assert await machine.run_state(target) == "paused"
        await machine.cont(target)
        assert await machine.run_state(target) == "running"


async def test_a_guest_that_is_held_at_the_switchover_runs_on_when_it_is_cancelled(folder: Path) -> None:
    async with pair(folder) as (source, _):
        with source.listening("MIGRATION") as events:
            await migrate.start(source, f"unix:{folder}/ram")
            await migrate.wait_status(events, frozenset({"pre-switchover"}), 20)
            await migrate.cancel(source)
            assert await migrate.wait_status(events, ENDED, 20) == "cancelled"
        with source.listening("RESUME") as events:
            if await machine.run_state(source) != "running":
                await events.wait(lambda event: True, 20, "the guest running on")
        assert await machine.run_state(source) == "running"


async def test_a_target_that_is_not_there_is_told(folder: Path) -> None:
    async with guest(folder, "a") as source:
        await migrate.set_capabilities(source, {"events": True})
        with source.listening("MIGRATION") as events:
            await migrate.start(source, f"unix:{folder}/nobody")
            assert await migrate.wait_status(events, ENDED, 20) == "failed"
        assert "nobody" in ((await migrate.progress(source)).error or "")
