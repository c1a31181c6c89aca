"""A host behind ssh. One connection per host; it ends with our process and takes nothing with it."""

from __future__ import annotations

import asyncio
import itertools
import os
import shlex
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from qemu_esd.errors import HostError, HostKeyError
from qemu_esd.hosts.base import Completed, SshAccess, SshTarget, Writer
from qemu_esd.hosts.scratch import scratch_folder
from qemu_esd.hosts.sshlib import asyncssh
from qemu_esd.log import timed

CONNECT_SECONDS = 15
# A dead control link is noticed after interval x count seconds.
KEEPALIVE_SECONDS, KEEPALIVE_COUNT = 5, 3
# An ordinary sshd refuses the eleventh program at once of a connection (MaxSessions); what is kept beside us is one.
PROGRAMS_AT_ONCE = 8
# It may not have seen yet that a program has ended of whose end we know already: then it has room in a moment.
NO_ROOM_SECONDS, AGAIN_SECONDS = 5.0, 0.05


class SshHost:
    """Runs programs on a host through an open ssh connection."""

    def __init__(self, name: str, connection: asyncssh.SSHClientConnection, sockets: Path) -> None:
        self.name = name
        self._connection = connection
        self._sockets = sockets
        self._forwards: dict[str, str] = {}
        self._numbers = itertools.count()
        self._turns = asyncio.Semaphore(PROGRAMS_AT_ONCE)

    async def attempt(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        try:
            with timed("ssh", host=self.name, program=_brief(argv)):
                async with self._turns:
                    done = await self._run(argv, stdin)
        except (asyncssh.Error, OSError) as error:
            raise HostError(f"the ssh connection broke: {error}", host=self.name) from error
        if done.returncode is None:
            raise HostError(f"the ssh connection broke while {argv[0]} ran", host=self.name)
        return Completed(done.returncode, _bytes(done.stdout), _bytes(done.stderr).decode(errors="replace"))

    async def _run(self, argv: Sequence[str], stdin: bytes) -> asyncssh.SSHCompletedProcess:
        """Asked again where sshd has no room: of what it refuses nothing has run."""
        # Empty input would be none at all, and a program that reads it would wait for ever.
        source = asyncssh.PIPE if stdin else asyncssh.DEVNULL
        patience = time.monotonic() + NO_ROOM_SECONDS
        while True:
            try:
                return await self._connection.run(_command(argv), stdin=source, input=stdin or None, encoding=None)
            except asyncssh.ChannelOpenError:
                if self._connection.is_closed() or time.monotonic() > patience:
                    raise
            await asyncio.sleep(AGAIN_SECONDS)

    @asynccontextmanager
    async def keep(self, argv: Sequence[str]) -> AsyncIterator[Writer]:
        try:
            process = await self._connection.create_process(
                _command(argv), encoding=None, stdout=asyncssh.DEVNULL, stderr=asyncssh.DEVNULL
            )
        except (asyncssh.Error, OSError) as error:
            raise HostError(f"the ssh connection broke: {error}", host=self.name) from error
        try:
            yield process.stdin
        finally:
            # Where the connection has died its end is known at once, and the program's own has come by that.
            with suppress(OSError):
                process.stdin.write_eof()
            await process.wait_closed()

    async def forward(self, path: str) -> str:
        if path not in self._forwards:
            local = str(self._sockets / f"{next(self._numbers)}.sock")
            try:
                await self._connection.forward_local_path(local, path)
            except (asyncssh.Error, OSError) as error:
                raise HostError(f"cannot forward {path}: {error}", host=self.name) from error
            self._forwards[path] = local
        return self._forwards[path]

    async def peer_address(self) -> str | None:
        return str(self._connection.get_extra_info("peername")[0])

    async def ssh_access(self) -> SshAccess:
        key = self._connection.get_server_host_key()
        assert key is not None
        public = key.export_public_key().decode().split()
        user = str(self._connection.get_extra_info("username"))
        port = int(self._connection.get_extra_info("peername")[1])
        return SshAccess(user, port, " ".join(public[:2]))


def _command(argv: Sequence[str]) -> bytes:
    """`exec sh -c` because the login shell may be anything; shlex quotes for it and for sh alike."""
    return os.fsencode("exec /bin/sh -c " + shlex.quote("exec " + shlex.join(argv)))


def _brief(argv: Sequence[str]) -> str:
    """A program in a few words: of a script its first line, and what it is about."""
    words = [argv[2].strip().partition("\n")[0], *argv[4:5]] if argv[:2] == ("sh", "-c") else argv
    return " ".join(words)[:100]


def _bytes(output: object) -> bytes:
    assert isinstance(output, bytes)
    return output


@asynccontextmanager
async def open_configured(name: str) -> AsyncIterator[SshHost]:
    """A host as `ssh NAME` reaches it: the user's configuration, keys, agent and known hosts; NAME may be USER@HOST."""
    user, _, address = name.rpartition("@")
    words = {"username": user} if user else {}
    async with _opened(name, asyncssh.connect(address, **words, **_KEEPALIVE)) as host:
        yield host


@asynccontextmanager
async def open_target(name: str, target: SshTarget, sock: socket.socket) -> AsyncIterator[SshHost]:
    """A host by explicit facts, over a socket that is already connected; the user's ssh files play no part."""
    connecting = asyncssh.connect(
        target.address,
        target.port,
        sock=sock,
        username=target.user,
        client_keys=[str(target.key_file)],
        known_hosts=str(target.known_hosts),
        config=None,
        agent_path=None,
        **_KEEPALIVE,
    )
    async with _opened(name, connecting) as host:
        yield host


_KEEPALIVE = {
    "keepalive_interval": KEEPALIVE_SECONDS,
    "keepalive_count_max": KEEPALIVE_COUNT,
    "connect_timeout": CONNECT_SECONDS,
}


@asynccontextmanager
async def _opened(name: str, connecting: object) -> AsyncIterator[SshHost]:
    # Nobody else reaches the monitors that we forward.
    with scratch_folder() as folder:
        try:
            connection = await connecting  # type: ignore[misc]
        except asyncssh.HostKeyNotVerifiable as error:
            raise HostKeyError(
                f"its ssh host key is not trusted: {error.reason}",
                host=name,
                hint=f"compare the fingerprint and accept it once with: ssh -- {shlex.quote(name)} true",
            ) from error
        except asyncssh.PermissionDenied as error:
            raise HostError(
                "ssh refuses us", host=name, hint=f"make `ssh {shlex.quote(name)}` work without a password"
            ) from error
        except (TimeoutError, asyncssh.Error, OSError) as error:
            raise HostError(
                f"cannot be reached: {str(error) or 'no answer'}",
                host=name,
                hint=f"ssh -- {shlex.quote(name)} true",
            ) from error
        async with connection:
            yield SshHost(name, connection, folder)
