from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from qemu_esd.hosts.base import Host
from qemu_esd.hosts.local import LocalHost
from qemu_esd.hosts.ssh import open_target
from tests.hosts.sshd import Server, serving
from tests.support.qemu import short_folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["local", "ssh"])
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    """This machine, reached in either way. One connection for all tests: they run in the loop of the session."""
    if request.param == "local":
        yield LocalHost()
        return
    server: Server = request.getfixturevalue("server")
    sock = socket.create_connection(("127.0.0.1", server.port))
    sock.setblocking(False)
    async with open_target("there", server.target(), sock) as opened:
        yield opened


@pytest.fixture
def folder() -> Iterator[Path]:
    """For units and sockets: a short path."""
    with short_folder() as short:
        yield short
