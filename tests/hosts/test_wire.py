"""The way between two hosts, measured for real; and ways that are closed."""

from __future__ import annotations

import socket

from qemu_esd.hosts import wire
from qemu_esd.hosts.local import LocalHost

HERE = LocalHost()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def test_measured() -> None:
    told = await wire.measure(HERE, "127.0.0.1", free_port(), HERE)
    assert isinstance(told, wire.Wire)
    assert told.rate > 1 << 20
    assert 0 < told.round_trip < 1


async def test_a_port_that_is_taken_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = await wire.measure(HERE, "127.0.0.1", server.getsockname()[1], HERE)
    assert isinstance(told, wire.Closed)
    assert "in use" in told.why


async def test_an_address_that_is_nobodys_is_closed() -> None:
    told = await wire.measure(HERE, "192.0.2.1", free_port(), HERE)
    assert isinstance(told, wire.Closed)
