"""The machine we run on, under the name `local`."""

from __future__ import annotations

import asyncio
import getpass
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from qemu_esd.errors import HostError
from qemu_esd.hosts.base import Completed, SshAccess, Writer


class LocalHost:
    """Runs programs here, without ssh."""

    name = "local"

    async def attempt(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        try:
            process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        except FileNotFoundError:
            return Completed(127, b"", f"{argv[0]}: not found")
        except OSError as error:
            raise HostError(f"cannot start {argv[0]}: {error.strerror}", host=self.name) from error
        try:
            stdout, stderr = await process.communicate(stdin)
        except asyncio.CancelledError:
            process.kill()
            raise
        assert process.returncode is not None
        return Completed(process.returncode, stdout, stderr.decode(errors="replace"))

    @asynccontextmanager
    async def keep(self, argv: Sequence[str]) -> AsyncIterator[Writer]:
        process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL)
        assert process.stdin is not None
        try:
            yield process.stdin
        finally:
            process.stdin.close()
            await process.wait()

    async def forward(self, path: str) -> str:
        return path

    async def peer_address(self) -> str | None:
        return None

    async def ssh_access(self) -> SshAccess:
        try:
            key = Path("/etc/ssh/ssh_host_ed25519_key.pub").read_text(encoding="utf-8").split()
        except OSError as error:
            raise HostError(
                "no sshd is set up here, so the other host cannot come in by ssh",
                host=self.name,
                hint="apt-get install openssh-server, or use --transport tls",
            ) from error
        return SshAccess(getpass.getuser(), 22, " ".join(key[:2]))
