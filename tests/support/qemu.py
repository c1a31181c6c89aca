"""Real QEMU programs for tests: started, ready when the context is entered, gone when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qemu_esd.hosts.local import LocalHost
from qemu_esd.qmp.session import Session, open_session

Node = dict[str, Any]


class NotStartedError(Exception):
    """The program did not take its options; the text is what it said."""


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """An empty folder whose path leaves room for the name of a unix socket (107 bytes)."""
    with tempfile.TemporaryDirectory(prefix="esd-") as path:
        yield Path(path)


@contextlib.asynccontextmanager
async def storage_daemon(*options: str) -> AsyncIterator[Process]:
    """A qemu-storage-daemon that has taken all of `options`. Raises NotStartedError."""
    async with storage_daemon_by("qemu-storage-daemon", *options) as process:
        yield process


@contextlib.asynccontextmanager
async def storage_daemon_by(*argv: str) -> AsyncIterator[Process]:
    """The same by a whole command line, which may begin with what makes its sockets."""
    ready = ("--chardev", "stdio,id=ready", "--monitor", "chardev=ready")
    async with _running(*argv, *ready) as process:
        yield process


@contextlib.asynccontextmanager
async def qemu(*options: str) -> AsyncIterator[Process]:
    """A stopped qemu-system without devices that has taken all of `options`. Raises NotStartedError."""
    plain = ("-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg", "-S")
    ready = ("-chardev", "stdio,id=ready", "-mon", "chardev=ready,mode=control")
    async with _running("qemu-system-x86_64", *plain, *options, *ready) as process:
        yield process


@contextlib.asynccontextmanager
async def _running(*argv: str) -> AsyncIterator[Process]:
    """Its monitor on stdio is the last option: it greets when all the others are done.

    Monitors are handed to the thread that serves them, the last one first. Who connects to one in the meantime is
    served by two threads at once, which a storage daemon does not always survive. When the last one answers, all are
    handed over.
    """
    process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        if b"QMP" not in await process.stdout.readline():
            words = (await process.stderr.read()).decode()
            await process.wait()
            raise NotStartedError(words)
        await _answers(process)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def _answers(process: Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b'{"execute": "qmp_capabilities"}\n')
    while b'"return"' not in (line := await process.stdout.readline()):
        assert line, "it ended"


@contextlib.asynccontextmanager
async def daemon_session(folder: Path, *options: str) -> AsyncIterator[Session]:
    """A session with a storage daemon that has taken all of `options`; its socket is in `folder`."""
    path = option(f"{folder}/qmp")
    monitor = ("--chardev", f"socket,id=qmp,path={path},server=on,wait=off", "--monitor", "chardev=qmp")
    async with storage_daemon(*monitor, *options):
        async with open_session(LocalHost(), f"{folder}/qmp", "the daemon") as session:
            yield session


@contextlib.asynccontextmanager
async def qemu_session(folder: Path, *options: str) -> AsyncIterator[Session]:
    """A session with a stopped QEMU without a machine that has taken all of `options`; its socket is in `folder`."""
    # A storage daemon has two dashes where QEMU has one.
    options = tuple(f"-{word[2:]}" if word in ("--blockdev", "--object") else word for word in options)
    monitor = ("-machine", "none", "-qmp", f"unix:{option(f'{folder}/qmp')},server=on,wait=off")
    async with qemu(*monitor, *options):
        async with open_session(LocalHost(), f"{folder}/qmp", "vm") as session:
            yield session


def option(value: str) -> str:
    """A value inside a list of options: its commas are doubled."""
    return value.replace(",", ",,")


def blockdevs(nodes: Iterable[Node]) -> list[str]:
    """The options that make these nodes, in this order."""
    return [word for node in nodes for word in ("--blockdev", json.dumps(node))]


def objects(*wanted: Node | None) -> list[str]:
    """The options that make these objects; None needs none."""
    return [word for each in wanted if each for word in ("--object", json.dumps(each))]


def image_io(path: Path | str, format: str, *commands: str) -> subprocess.CompletedProcess[str]:
    """qemu-io on an image or an NBD URI, opened to write, as another process on this host does it."""
    return _qemu_io("-f", format, *_commands(commands), str(path))


def look_io(path: Path | str, format: str, *commands: str) -> subprocess.CompletedProcess[str]:
    """The same, opened to read only."""
    return _qemu_io("-r", "-f", format, *_commands(commands), str(path))


def _commands(commands: Iterable[str]) -> list[str]:
    return [word for command in commands for word in ("-c", command)]


def _qemu_io(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["qemu-io", *words], capture_output=True, text=True, check=False, timeout=60)


def reads(path: Path | str, format: str, *patterns: str) -> bool:
    """Whether these patterns are there, each as in "0xa1 0 64k" (byte, offset, length)."""
    done = look_io(path, format, *(f"read -P {pattern}" for pattern in patterns))
    return done.returncode == 0 and "verification failed" not in done.stdout


def nbd_uri(socket: Path | str, export: str) -> str:
    """An export on a unix socket, as qemu-io and qemu-img take it."""
    return f"nbd+unix:///{export}?socket={quote(str(socket))}"


def create(path: Path, format: str, size: str = "8M", *options: str) -> Path:
    """An empty image made by qemu-img."""
    argv = ["qemu-img", "create", "-q", "-f", format, *options, str(path), size]
    subprocess.run(argv, check=True, timeout=60)
    return path


def fill(path: Path, format: str, *writes: str) -> None:
    """Write patterns, each as in "0xa1 0 64k" (byte, offset, length)."""
    done = image_io(path, format, *(f"write -P {write}" for write in writes))
    assert done.returncode == 0, done.stdout + done.stderr
