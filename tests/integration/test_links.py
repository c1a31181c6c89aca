"""A link that dies in silence: it is noticed, nobody hangs; when it is back the guest goes on by itself, unharmed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.model.plan import Transport
from qemu_esd.model.policy import Handler
from qemu_esd.phases import settle
from tests.integration.support.commands import end, say, start
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import tell
from tests.integration.support.links import cut

pytestmark = pytest.mark.lab

# The promise is 20 s; a machine with two busy cores gets some more.
NOTICED_SECONDS = 25.0
STOPPED_SECONDS = 40.0
ANSWER_SECONDS = 5.0
BACK_SECONDS = 60.0


async def test_a_dead_link(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests read what only the source has, by either transport: their disks stop them, and nothing is lost.

    One is held by a controller all the while, so that nobody else tells it to go on. `metrics` tells hooks of it.
    """
    monkeypatch.setenv("QEMU_ESD_CONFIG", str(tmp_path))
    load = "esd.mode=verify esd.rate=200 esd.mix=10/0/90"
    tls = await fleet.boot(Drive("vda", 7, "t.raw", size=16 * MIB), name="tls", load=load)
    ssh = await fleet.boot(Drive("vda", 8, "s.raw", size=16 * MIB), name="ssh", load=load)
    held = await fleet.boot(Drive("vda", 9, "h.raw", size=16 * MIB), name="held", load=load)
    await tls.migrate(fleet.b, Handler.REDIRECT, transport=Transport.TLS)
    await ssh.migrate(fleet.b, Handler.REDIRECT, transport=Transport.SSH)
    await held.migrate(fleet.b, Handler.REDIRECT)
    async with api.open_guest("held", "hostB") as station, hooks_told(tmp_path) as hooks:
        async with cut("hostA", "hostB"):
            await asyncio.gather(*map(noticed, (tls, ssh)))
            await hooks.told("degraded tls hostA hostB tls runs on hostB, and hostA does not answer it")
            await hooks.told("degraded ssh hostA hostB ssh runs on hostB, and hostA does not answer it")
            await asyncio.gather(*map(stopped, (tls, ssh, held)))
            for guest in (tls, ssh):
                seen = await guest.look()
                assert seen.link_down_s is not None
                assert seen.waiting_requests
                told = (await say("status", guest.name)).out
                assert ("link down for" in told, "has stopped it" in told) == (True, True), told
        await asyncio.gather(*map(goes_on, (tls, ssh)))
        await hooks.told("recovered tls hostA hostB None")
        await hooks.told("recovered ssh hostA hostB None")
        assert await answer(held) == "io-error"
        await settle.settle(station, lambda *_: None)
        assert await answer(held) == "running"
    for guest in (tls, ssh, held):
        await guest.is_well()
        await guest.pause()
        await guest.recheck()
    await fleet.finish(tls, ssh, held)


@dataclass(frozen=True)
class Hooks:
    file: Path

    async def told(self, line: str) -> None:
        try:
            async with asyncio.timeout(BACK_SECONDS):
                while line not in self.lines():
                    await asyncio.sleep(0.2)
        except TimeoutError as error:
            raise AssertionError(self.lines()) from error

    def lines(self) -> list[str]:
        told = map(json.loads, self.file.read_text().splitlines())
        return [" ".join(str(one[key]) for key in ("event", "vm", "source", "target", "problem")) for one in told]


@asynccontextmanager
async def hooks_told(folder: Path) -> AsyncIterator[Hooks]:
    """Hooks that write down what they are told by a `metrics` that looks again and again; each is told once."""
    hooks = Hooks(folder / "told")
    hooks.file.touch()
    (folder / "hooks").mkdir()
    for event in ("degraded", "recovered"):
        hook = folder / "hooks" / event
        hook.write_text(f"#!/bin/sh\n(cat; echo) >>{hooks.file}\n")
        hook.chmod(0o755)
    looking = await start("metrics", "--textfile", str(folder / "metrics"), "--every", "2")
    try:
        yield hooks
        assert len(set(hooks.lines())) == len(hooks.lines())
    finally:
        looking.terminate()
        assert (await end(looking)).status == 0


async def noticed(guest: Guest) -> None:
    """`status` tells it; the monitor answers all the time."""
    async with asyncio.timeout(NOTICED_SECONDS):
        while (await guest.look()).link != "down":
            await answer(guest)
            await asyncio.sleep(0.5)


async def stopped(guest: Guest) -> None:
    """A read has failed after the time that a short gap may take, and QEMU has stopped the guest."""
    async with asyncio.timeout(STOPPED_SECONDS):
        while (await answer(guest)) != "io-error":
            await asyncio.sleep(0.5)


async def answer(guest: Guest) -> str:
    async with asyncio.timeout(ANSWER_SECONDS):
        return str((await tell(guest, "query-status"))["status"])


async def goes_on(guest: Guest) -> None:
    """With the link back it goes on by itself; and what errors may follow, it stays so."""
    async with asyncio.timeout(BACK_SECONDS):
        while (await answer(guest)) != "running":
            await asyncio.sleep(0.5)
        # QEMU may take a while to connect again, for what it has not been asked yet.
        while ((now := await guest.look()).link, now.link_down_s) != ("up", None):
            await asyncio.sleep(0.5)
        assert now.waiting_requests is None
