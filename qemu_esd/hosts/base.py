"""What every host can do, whatever way we reach it: run a program, and connect to a unix socket on it.

Nothing of ours is installed on a host: `sh`, the usual small programs and QEMU are enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from qemu_esd.errors import CommandFailedError


@dataclass(frozen=True)
class Completed:
    """How a program ended: exit `status` (negative: signal number), `stdout` bytes, `stderr` text."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")


class Reader(Protocol):
    """The part of asyncio.StreamReader that we use; asyncssh's reader has it too."""

    async def readexactly(self, n: int) -> bytes: ...


class Writer(Protocol):
    """The part of asyncio.StreamWriter that we use; asyncssh's writer has it too."""

    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...
    async def wait_closed(self) -> None: ...


@dataclass(frozen=True)
class SshAccess:
    """How another host gets in by ssh: user, port, and the host key (as in known_hosts) that it must show."""

    user: str
    port: int
    host_key: str


@dataclass(frozen=True)
class SshTarget:
    """How to reach a host that the user's own ssh configuration does not know (a lab host)."""

    address: str
    port: int
    user: str
    key_file: Path
    known_hosts: Path


class Host(Protocol):
    """A machine that runs guests. `name` is what the user calls it."""

    @property
    def name(self) -> str: ...

    async def attempt(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        """Run `argv` there (no shell reads it) and return how it ended. Raises HostError if the host is gone."""
        ...

    def keep(self, argv: Sequence[str]) -> AbstractAsyncContextManager[Writer]:
        """A program that runs beside us, and its stdin: which ends when we do, however that is. What it says is lost.

        Leaving the context ends its stdin and waits for its end. Raises HostError.
        """
        ...

    async def forward(self, path: str) -> str:
        """A unix socket path on this machine that leads to `path` on the host for as long as the host is open."""
        ...

    async def peer_address(self) -> str | None:
        """The address that we reach the host by, or None for the machine we run on."""
        ...

    async def ssh_access(self) -> SshAccess:
        """How another host may come in. Raises HostError where no sshd is known."""
        ...


async def run(host: Host, argv: Sequence[str], stdin: bytes = b"") -> Completed:
    """Run `argv` on `host`; raises CommandFailedError unless it ends with 0."""
    done = await host.attempt(argv, stdin)
    if done.status != 0:
        raise CommandFailedError(tuple(argv), done.status, done.stderr, host=host.name)
    return done


async def shell(host: Host, script: str, *args: str, stdin: bytes = b"") -> Completed:
    """Run a fixed POSIX `script` on `host` with `args` as $1, $2 …: what varies is in `args`, never in `script`."""
    return await run(host, ("sh", "-c", script, "sh", *args), stdin)


async def open_unix(host: Host, path: str) -> tuple[Reader, Writer]:
    """A byte stream to the unix socket `path` on `host`."""
    return await asyncio.open_unix_connection(await host.forward(path))
