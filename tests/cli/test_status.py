"""`status` asks for guests and devices at once: whoever does not answer is waited for once."""

from __future__ import annotations

import asyncio

import pytest

from qemu_esd import api, devices, status
from qemu_esd.errors import EsdError
from qemu_esd.journal import devices as known
from qemu_esd.journal import registry
from tests.cli.conftest import Say


class Meeting:
    """Who comes first waits for the other one."""

    def __init__(self) -> None:
        self._came = 0
        self._both = asyncio.Event()

    async def come(self) -> None:
        self._came += 1
        if self._came == 2:
            self._both.set()
        await asyncio.wait_for(self._both.wait(), 10)


def test_guests_and_devices_are_looked_at_side_by_side(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = Meeting()

    async def guests(_: str | None) -> status.Overview:
        await meeting.come()
        return status.Overview((), ())

    async def those() -> tuple[EsdError, ...]:
        await meeting.come()
        return (EsdError("it does not answer", host="hostA"),)

    monkeypatch.setattr(api, "look_around", guests)
    monkeypatch.setattr(devices, "look_around", those)
    registry.remember("vm1", "hostA")
    known.remember("suid1", ("hostA",))
    told = say("status")
    assert told.status == 0, told.err
    assert "it does not answer" in told.err
