"""What a host is and has, on this machine as it is."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from qemu_esd.errors import RefusedError
from qemu_esd.hosts import facts
from qemu_esd.hosts.base import Completed
from qemu_esd.hosts.local import LocalHost
from qemu_esd.model.host import HostPaths

HERE = LocalHost()


async def test_programs_are_those_that_are_in_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await facts.look(LocalHost())).programs >= {"qemu-img", "qemu-storage-daemon", "timeout"}
    for name in ("sh", "id", "ssh"):
        (tmp_path / name).symlink_to(Path("/bin/sh" if name == "sh" else f"/usr/bin/{name}"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (await facts.look(LocalHost())).programs == {"ssh"}


@pytest.mark.parametrize(
    ("uid", "runtime", "paths"),
    [
        ("0", "/run/user/0", HostPaths("/var/lib/qemu-esd", "/run/qemu-esd")),
        ("1000", "/run/user/1000", HostPaths("/home/a b/.local/state/qemu-esd", "/run/user/1000/qemu-esd")),
        ("1000", None, HostPaths("/home/a b/.local/state/qemu-esd", "/run/user/1000/qemu-esd")),
    ],
)
async def test_our_folders_are_those_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: str, runtime: str | None, paths: HostPaths
) -> None:
    """As another user: `id` is a program like any other."""
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {uid}\n")
    (tmp_path / "id").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", "/home/a b")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    assert (await facts.look(LocalHost())).paths == paths


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.1.2.3"])
async def test_the_address_towards_a_peer_is_that_of_the_route(peer: str) -> None:
    assert await facts.address_towards(HERE, peer) == "127.0.0.1"


class Alone(LocalHost):
    """This machine without its networks."""

    async def attempt(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        return await super().attempt(("unshare", "--map-root-user", "--net", *argv), stdin)


async def test_a_peer_without_a_way_is_refused() -> None:
    if (await Alone().attempt(("true",))).status:
        pytest.skip("no network namespace can be made here")
    with pytest.raises(RefusedError, match=r"local: it has no way to 192\.0\.2\.1") as raised:
        await facts.address_towards(Alone(), "192.0.2.1")
    assert raised.value.hint == "mend the route: ip route get 192.0.2.1"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_ports_in_use_are_those_that_somebody_listens_on(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        server = socket.create_server((address, 0), family=family)
    except OSError:
        pytest.skip(f"there is no {address} here")
    with server:
        port = server.getsockname()[1]
        assert port in await facts.ports_in_use(HERE)
    assert port not in await facts.ports_in_use(HERE)
