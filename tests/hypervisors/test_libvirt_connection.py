"""Connections to libvirt: without its binding for Python, and closed where nobody waits for them any more."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import ModuleType
from typing import Any

import pytest

from qemu_esd.errors import RefusedError
from qemu_esd.hosts.local import LocalHost
from qemu_esd.hypervisors.libvirt import connection
from qemu_esd.hypervisors.libvirt.connection import open_libvirt


async def test_without_the_binding_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(RefusedError, match="binding for Python is missing") as caught:
        async with open_libvirt(LocalHost()):
            pass
    assert caught.value.hint is not None
    assert "apt-get install libvirt-dev" in caught.value.hint
    assert "pip install '/path/to/clone[libvirt]'" in caught.value.hint


class SlowBinding(ModuleType):
    """A binding whose openings wait for a word, and whose connections tell by which thread they were closed first."""

    def __init__(self) -> None:
        super().__init__("libvirt")
        self.libvirtError = ConnectionError
        self.opening, self.answer, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.closed_by: list[threading.Thread] = []

    def open(self, _: str) -> Any:
        self.opening.set()
        self.answer.wait()
        return SlowConnection(self)


class SlowConnection:
    def __init__(self, binding: SlowBinding) -> None:
        self.binding = binding

    def close(self) -> None:
        self.binding.closed_by.append(threading.current_thread())
        self.binding.closed.set()

    __del__ = close


async def test_one_that_nobody_waits_for_is_never_closed_by_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the answer to that, which the loop itself has to bring: it would stand still for ever."""
    slow, loop = SlowBinding(), asyncio.get_running_loop()
    monkeypatch.setattr(connection, "_binding", lambda: slow)
    monkeypatch.setattr(connection, "SOCKETS", ("/dev/null",))
    opening = asyncio.ensure_future(open_libvirt(LocalHost()).__aenter__())
    await loop.run_in_executor(None, slow.opening.wait)
    opening.cancel()
    await asyncio.wait([opening])
    slow.answer.set()
    await loop.run_in_executor(None, slow.closed.wait)
    assert slow.closed_by[0] is not threading.main_thread()
