"""A host behind ssh: how it is found and trusted, what is told when it is not, and that nothing of ours stays."""

from __future__ import annotations

import asyncio
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from qemu_esd.errors import EsdError, HostError, HostKeyError, UsageError
from qemu_esd.hosts import ssh
from qemu_esd.hosts.base import SshTarget
from qemu_esd.hosts.connect import check_host_name, open_host, open_hosts
from qemu_esd.hosts.ssh import open_configured, open_target
from tests.hosts.sshd import USER, Server, client_home, new_key
from tests.support.net import free_port

ALIAS = "alias-of-the-user"


def connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


@pytest.fixture
def home(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home folder, in which ALIAS is known; its host key is not, and there is no agent."""
    monkeypatch.setenv("HOME", str(client_home(tmp_path, server, ALIAS)))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


async def refused(name: str) -> EsdError:
    """What opening the host `name` raises."""
    with pytest.raises(EsdError) as raised:
        async with open_configured(name):
            pass
    assert raised.value.host == name
    return raised.value


async def test_a_host_is_what_ssh_understands_by_its_name(server: Server, home: Path) -> None:
    (home / ".ssh/known_hosts").write_text(server.known_as("127.0.0.1"))
    async with open_host(ALIAS) as host:
        assert host.name == ALIAS
        assert (await host.attempt(("echo", "hello"))).text == "hello\n"
        assert await host.peer_address() == "127.0.0.1"


async def test_a_user_may_stand_before_the_name(server: Server, home: Path) -> None:
    (home / ".ssh/known_hosts").write_text(server.known_as("127.0.0.1"))
    config = home / ".ssh/config"
    config.write_text(config.read_text().replace(f"User {USER}", "User nobody-of-that-name"))
    async with open_host(f"{USER}@{ALIAS}") as host:
        assert (await host.ssh_access()).user == USER


async def test_a_host_tells_how_others_get_in(server: Server, home: Path) -> None:
    (home / ".ssh/known_hosts").write_text(server.known_as("127.0.0.1"))
    async with open_host(ALIAS) as host:
        access = await host.ssh_access()
    assert (access.user, access.port, access.host_key) == (USER, server.port, server.host_key)


async def test_a_host_key_that_nobody_has_seen_is_refused(home: Path) -> None:
    error = await refused(ALIAS)
    assert isinstance(error, HostKeyError)
    assert error.exit_status == 3
    assert f"ssh -- {ALIAS} true" in (error.hint or "")
    assert not (home / ".ssh/known_hosts").exists()


async def test_a_host_key_that_has_changed_is_refused(server: Server, home: Path, tmp_path: Path) -> None:
    (home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{server.port} {new_key(tmp_path / 'other')}\n")
    assert isinstance(await refused(ALIAS), HostKeyError)


async def test_a_host_that_does_not_let_us_in_says_so(server: Server, home: Path, tmp_path: Path) -> None:
    (home / ".ssh/known_hosts").write_text(server.known_as("127.0.0.1"))
    new_key(tmp_path / "stranger")
    config = home / ".ssh/config"
    config.write_text(config.read_text().replace(str(server.client_key), str(tmp_path / "stranger")))
    error = await refused(ALIAS)
    assert type(error) is HostError
    assert "ssh refuses us" in str(error)
    assert "without a password" in (error.hint or "")


async def test_a_host_on_which_nobody_listens_cannot_be_reached(server: Server, home: Path) -> None:
    config = home / ".ssh/config"
    config.write_text(config.read_text().replace(f"Port {server.port}", f"Port {free_port()}"))
    error = await refused(ALIAS)
    assert type(error) is HostError
    assert "cannot be reached" in str(error)
    assert "Connect call failed" in str(error)


async def test_a_name_that_nobody_knows_cannot_be_reached(home: Path) -> None:
    error = await refused("no-such-host.invalid")
    assert type(error) is HostError
    assert "cannot be reached" in str(error)


async def test_a_host_that_says_nothing_cannot_be_reached(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ssh._KEEPALIVE, "connect_timeout", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = home / ".ssh/config"
        config.write_text(f"Host {ALIAS}\n  HostName 127.0.0.1\n  Port {silent.getsockname()[1]}\n")
        error = await refused(ALIAS)
    assert type(error) is HostError
    assert str(error).removeprefix(f"{ALIAS}: cannot be reached: ")


async def test_explicit_facts_need_nothing_of_the_users(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with open_target("lab", server.target(), connected(server.port)) as host:
        assert (await host.attempt(("true",))).status == 0
    assert list(tmp_path.iterdir()) == []


async def test_explicit_facts_are_checked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    target = SshTarget("127.0.0.1", server.port, USER, server.client_key, tmp_path / "empty")
    with pytest.raises(HostKeyError):
        async with open_target("lab", target, connected(server.port)):
            pass


# ---- while it is open


async def test_a_socket_is_forwarded_once_and_for_us_alone(server: Server, folder: Path) -> None:
    async with open_target("there", server.target(), connected(server.port)) as host:
        local = Path(await host.forward(str(folder / "a.sock")))
        assert await host.forward(str(folder / "a.sock")) == str(local)
        assert await host.forward(str(folder / "b.sock")) != str(local)
        assert stat.S_IMODE(local.parent.stat().st_mode) == 0o700
    assert not local.parent.exists()


async def test_a_socket_on_which_nobody_listens_ends_at_once(server: Server, folder: Path) -> None:
    async with open_target("there", server.target(), connected(server.port)) as host:
        reader, writer = await asyncio.open_unix_connection(await host.forward(str(folder / "nobody")))
        assert await reader.read() == b""
        writer.close()


async def test_two_hosts_are_opened_once_each_and_closed_together(
    server: Server, home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".ssh/known_hosts").write_text(server.known_as("127.0.0.1"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before = set(folder.iterdir())
    async with open_hosts() as hosts:
        there, here = await hosts.get(ALIAS), await hosts.get("local")
        assert await hosts.get(ALIAS) is there
        assert await hosts.get("local") is here
        assert set(folder.iterdir()) > before
    with pytest.raises(HostError):
        await there.attempt(("true",))
    assert set(folder.iterdir()) == before


async def test_a_connection_that_breaks_is_an_error_of_the_host(server: Server) -> None:
    async with open_target("there", server.target(), connected(server.port)) as host:
        with pytest.raises(HostError, match="there: the ssh connection broke"):
            # The parent of the command's shell is the server's process for this connection.
            await host.attempt(("sh", "-c", "kill -9 $PPID"))
        with pytest.raises(HostError, match="there:"):
            await host.attempt(("true",))


@pytest.mark.parametrize("name", ["", "-oProxyCommand=id", "a b", "a;b", "a/b", "$(id)", "a\n", "é", "a,b"])
def test_a_name_that_no_ssh_host_can_have_is_wrong_usage(name: str) -> None:
    with pytest.raises(UsageError, match="not a host name"):
        check_host_name(name)


@pytest.mark.parametrize("name", ["host", "host.example.org", "user@host", "192.0.2.1", "fe80::1%eth0", "_x", "a-b"])
def test_other_names_are_left_to_ssh(name: str) -> None:
    check_host_name(name)


async def test_more_programs_run_than_an_ordinary_sshd_lets_run_at_once(server: Server) -> None:
    """Ten by its default; `status` asks for several of each guest of a host."""
    async with open_target("there", server.target(), connected(server.port)) as host:
        told = await asyncio.gather(*(host.attempt(("echo", str(number))) for number in range(30)))
    assert [done.text for done in told] == [f"{number}\n" for number in range(30)]
