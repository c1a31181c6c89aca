"""The guard of a path handler, without one: what it runs is a program that says so."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_esd.errors import RefusedError
from qemu_esd.graph import image_guard
from qemu_esd.hosts.local import LocalHost
from qemu_esd.model.disk import Chain, Image, Link, UnixPath
from qemu_esd.model.record import LinkMember
from qemu_esd.phases import identity

MINUTE = 60
SIZE = 4096


def member(path: Path, *, format: str = "qcow2", writable: bool = False) -> LinkMember:
    chain: Chain = (Image(str(path), format), Image(f"{path}.base", "raw"), Link(UnixPath("/nbd"), "export"))
    for image in (path, Path(f"{path}.base")):
        image.write_bytes(bytes(SIZE))
    return LinkMember("one", chain, "export", SIZE, writable)


Streams = tuple[asyncio.StreamReader, asyncio.StreamReader]


@asynccontextmanager
async def guarded(told: LinkMember, *argv: str, folder: Path) -> AsyncIterator[tuple[Process, *Streams]]:
    """The guarded program with stdout and stderr. Its watch looks every few seconds, and ends with it here."""
    (folder / image_guard.STAMPS).write_bytes(image_guard.stamps((told,)))
    words = image_guard.guarded(argv)
    process = await asyncio.create_subprocess_exec(*words, stdout=PIPE, stderr=PIPE, cwd=folder, start_new_session=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(MINUTE):
            yield process, process.stdout, process.stderr
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def swap(path: Path) -> None:
    """Another file of the same size and age."""
    shutil.copy2(path, f"{path}.other")
    Path(f"{path}.other").replace(path)


def write(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x")


FAULTS: tuple[Callable[[Path], None], ...] = (
    swap,
    write,
    lambda path: os.truncate(path, SIZE // 2),
    lambda path: os.truncate(path, SIZE * 2),
    Path.unlink,
)


@pytest.mark.parametrize(("fault", "layer"), [*((fault, "") for fault in FAULTS), (write, ".base")])
async def test_what_is_another_is_not_served_until_it_is_put_back(
    tmp_path: Path, fault: Callable[[Path], None], layer: str
) -> None:
    (told,) = await identity.stamped(LocalHost(), (member(tmp_path / "disk"),))
    path = tmp_path / f"disk{layer}"
    path.rename(tmp_path / "kept")
    shutil.copy2(tmp_path / "kept", path)
    fault(path)
    async with guarded(told, "echo", "served", folder=tmp_path) as (_, out, err):
        assert str(path).encode() in await err.readline()
        path.unlink(missing_ok=True)
        (tmp_path / "kept").rename(path)
        assert await out.readline() == b"served\n"


async def test_a_new_name_is_no_change(tmp_path: Path) -> None:
    (told,) = await identity.stamped(LocalHost(), (member(tmp_path / "disk"),))
    (tmp_path / "disk").rename(tmp_path / "aside")
    moved = replace(told, chain=(Image(str(tmp_path / "aside"), "qcow2"), *told.chain[1:]))
    async with guarded(moved, "echo", "served", folder=tmp_path) as (_, out, _):
        assert await out.readline() == b"served\n"


async def test_what_is_written_through_us_may_change_and_no_other(tmp_path: Path) -> None:
    told = await identity.stamped(LocalHost(), (member(tmp_path / "disk", format="raw", writable=True),))
    (tmp_path / image_guard.STAMPS).write_bytes(image_guard.stamps(told))
    write(tmp_path / "disk")
    await identity.check(LocalHost(), str(tmp_path))
    os.truncate(tmp_path / "disk", SIZE // 2)
    with pytest.raises(RefusedError, match="4096 bytes"):
        await identity.check(LocalHost(), str(tmp_path))


async def test_a_watch_ends_what_serves_an_image_that_changes(tmp_path: Path) -> None:
    """As a unit does: in its folder, with its process id there."""
    (told,) = await identity.stamped(LocalHost(), (member(tmp_path / "disk"),))
    (tmp_path / "supervisor").touch()
    async with guarded(told, "sh", "-c", "echo served; exec sleep 1000", folder=tmp_path) as (process, out, err):
        (tmp_path / "pid").write_text(f"{process.pid}\n")
        assert await out.readline() == b"served\n"
        write(tmp_path / "disk")
        assert str(tmp_path / "disk").encode() in await err.readline()
        assert await process.wait() == -signal.SIGTERM


async def test_nothing_is_compared_before_the_handover(tmp_path: Path) -> None:
    await identity.check(LocalHost(), str(tmp_path))


async def test_names_are_words(tmp_path: Path) -> None:
    odd = tmp_path / "it's $(odd);\n -- it"
    (told,) = await identity.stamped(LocalHost(), (member(odd),))
    async with guarded(told, "echo", "served", folder=tmp_path) as (_, out, _):
        assert await out.readline() == b"served\n"
