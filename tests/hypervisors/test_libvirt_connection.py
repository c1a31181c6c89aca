"""A controller that lacks what it takes to ask a libvirt."""

from __future__ import annotations

import sys

import pytest

from qemu_esd.errors import RefusedError
from qemu_esd.hosts.local import LocalHost
from qemu_esd.hypervisors.libvirt.connection import open_libvirt


async def test_without_the_binding_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(RefusedError, match="binding for Python is missing") as caught:
        async with open_libvirt(LocalHost()):
            pass
    assert caught.value.hint is not None
    assert "apt-get install libvirt-dev" in caught.value.hint
    assert "pip install '/path/to/clone[libvirt]'" in caught.value.hint
