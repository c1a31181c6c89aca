"""A real qemu-storage-daemon with NBD exports on a unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qemu_esd import nbd
from tests.nbd.images import Images

FILL = "fill"  # export of the copy-on-read node
MAP = "map"  # export of the overlay, with allocation depth


@dataclass(frozen=True)
class Daemon:
    process: Process
    socket: Path

    @contextlib.asynccontextmanager
    async def open(self, export: str, *contexts: str) -> AsyncIterator[nbd.Client]:
        reader, writer = await asyncio.open_unix_connection(self.socket)
        async with nbd.open(reader, writer, export, contexts) as client:
            yield client

    def stop(self) -> None:
        """Freeze it, connections open, until it is killed."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def daemon(directory: Path, options: Sequence[str]) -> AsyncIterator[Daemon]:
    """Start with `options` (nodes and exports); its monitor greets when all of them are there."""
    socket = directory / "nbd.sock"
    socket.unlink(missing_ok=True)
    server = ["--nbd-server", f"addr.type=unix,addr.path={socket}"]
    monitor = ["--chardev", "stdio,id=monitor", "--monitor", "chardev=monitor"]
    process = await asyncio.create_subprocess_exec(
        "qemu-storage-daemon", *server, *options, *monitor, stdin=PIPE, stdout=PIPE
    )
    running = Daemon(process, socket)
    try:
        assert process.stdout and b"QMP" in await process.stdout.readline()
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            await running.kill()


def node(name: str, driver: str, **more: object) -> list[str]:
    return ["--blockdev", json.dumps({"node-name": name, "driver": driver, **more})]


def file(path: Path) -> dict[str, object]:
    return {"driver": "file", "filename": str(path)}


def export(node_name: str, name: str, *, depth: bool = False) -> list[str]:
    options = {"type": "nbd", "id": name, "node-name": node_name, "name": name, "writable": False}
    return ["--export", json.dumps({**options, "allocation-depth": depth})]


def copy_on_read(images: Images, base: dict[str, object] | None = None) -> list[str]:
    """The graph of a filling target: copy-on-read over the overlay over the base (or what stands for it)."""
    return [
        *node("base", "raw", file=base or file(images.base), **{"read-only": True}),
        *node("overlay", "qcow2", file=file(images.overlay), backing="base"),
        *node("cor", "copy-on-read", file="overlay"),
        *export("cor", FILL),
        *export("overlay", MAP, depth=True),
    ]


def failing(images: Images, offset: int, what: str = "read") -> dict[str, object]:
    """The base with one sector that cannot be read; or of which nothing can be told ("block-status")."""
    rule = {"event": "none", "iotype": what, "errno": 5, "sector": offset // 512}
    return {"driver": "blkdebug", "image": file(images.base), "inject-error": [rule]}
