"""The path handler's command lines run: as a proxy of a source QEMU, and as the holder of the images."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from qemu_esd.errors import QemuError
from qemu_esd.graph import names, nodes, path_handler
from qemu_esd.hosts.local import LocalHost
from qemu_esd.model.disk import Image, Link, TlsTcp, UnixPath
from qemu_esd.model.record import LinkMember
from qemu_esd.qmp import blockdev, exports, machine
from qemu_esd.qmp.session import Session, open_session
from tests.support.links import TRANSPORTS, Ends, ends, key_folder
from tests.support.qemu import (
    NotStartedError,
    blockdevs,
    create,
    daemon_session,
    fill,
    image_io,
    nbd_uri,
    objects,
    reads,
    storage_daemon,
    storage_daemon_by,
)

LetGo = Callable[[], Awaitable[None]]
SIZE = 8 << 20
SUIDS = ("one", "y" * 20)
EXPORTS = {suid: f"esd-{number:032x}" for number, suid in enumerate(SUIDS)}


def member(folder: Path, suid: str, *, writable: bool = False) -> LinkMember:
    """A raw image full of the first byte of its SUID."""
    path = folder / f"{suid}.raw"
    if not path.exists():
        create(path, "raw")
        fill(path, "raw", f"{ord(suid[0])} 0 8M")
    return LinkMember(suid, (Image(str(path), "raw"),), EXPORTS[suid], SIZE, writable)


def members(folder: Path) -> tuple[LinkMember, ...]:
    return tuple(member(folder, suid) for suid in SUIDS)


@asynccontextmanager
async def handler(folder: Path, argv: tuple[str, ...]) -> AsyncIterator[Session]:
    """A session with a path handler that runs by this command line."""
    async with storage_daemon_by(*argv):
        async with open_session(LocalHost(), f"{folder}/control.sock", "the path handler") as session:
            yield session


@asynccontextmanager
async def source(folder: Path, of: tuple[LinkMember, ...]) -> AsyncIterator[Session]:
    """What stands for the source QEMU: it holds the images and exports each under its SUID."""
    (folder / "source").mkdir(exist_ok=True)
    opened = [
        {"driver": "raw", "node-name": each.suid, "file": {"driver": "file", "filename": f"{folder}/{each.suid}.raw"}}
        for each in of
    ]
    async with daemon_session(folder / "source", *blockdevs(opened)) as session:
        await exports.serve_unix(session, f"{folder}/source.sock")
        for each in of:
            await exports.add_writable(session, f"w-{each.suid}", each.suid, f"w-{each.suid}")
            await exports.add(session, f"r-{each.suid}", each.suid, each.suid)
        yield session


@asynccontextmanager
async def target(folder: Path, of: tuple[LinkMember, ...], link: Ends, *, writable: bool = False) -> AsyncIterator[str]:
    """What stands for the target QEMU: the socket of a daemon that shows each device by its SUID through the link."""
    (folder / "target").mkdir(exist_ok=True)
    opened = [nodes.link(names.remote(each.suid), Link(link.reach, each.export), writable=writable) for each in of]
    options = [*objects(nodes.tls_object(link.reach, "client")), *blockdevs(opened)]
    async with daemon_session(folder / "target", *options) as session:
        await exports.serve_unix(session, f"{folder}/target.sock")
        add = exports.add_writable if writable else exports.add
        for each in of:
            await add(session, each.suid, names.remote(each.suid), each.suid)
        yield f"{folder}/target.sock"


def proxy_argv(folder: Path, of: tuple[LinkMember, ...], link: Ends) -> tuple[str, ...]:
    return path_handler.proxy_argv(
        [(each, each.chain) for each in of], link.listen, f"{folder}/control.sock", f"{folder}/source.sock"
    )


def image_argv(folder: Path, of: tuple[LinkMember, ...], link: Ends) -> tuple[str, ...]:
    return path_handler.image_argv(of, link.listen, f"{folder}/control.sock")


def shows_all(socket: str) -> bool:
    return all(reads(nbd_uri(socket, suid), "raw", f"{ord(suid[0])} 0 8M") for suid in SUIDS)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_as_a_proxy_it_shows_what_the_source_holds(folder: Path, transport: str) -> None:
    of, link = members(folder), ends(folder, transport)
    async with source(folder, of), handler(folder, proxy_argv(folder, of, link)):
        async with target(folder, of, link) as socket:
            assert shows_all(socket)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_as_the_holder_it_shows_the_images(folder: Path, transport: str) -> None:
    of, link = members(folder), ends(folder, transport)
    async with handler(folder, image_argv(folder, of, link)), target(folder, of, link) as socket:
        assert shows_all(socket)
        refused = image_io(folder / "one.raw", "raw", "write 0 64k")
        assert "lock" in refused.stderr


async def test_it_takes_the_images_while_the_target_reads_on(folder: Path) -> None:
    """The handover: refused while the source holds its image, done when it has let go, and both show the same data."""
    of, link = members(folder), ends(folder, "tls")
    async with handler_over_source(folder, of, link) as (session, let_go):
        async with target(folder, of, link) as socket:
            with pytest.raises(QemuError, match="lock"):
                await blockdev.add_all(session, path_handler.taken(of[0]))
            assert shows_all(socket)
            await let_go()
            for each in of:
                await blockdev.add_all(session, path_handler.taken(each))
                await blockdev.reopen(session, path_handler.served(each, names.image(each.suid)))
                await blockdev.delete(session, names.proxy(each.suid))
            assert shows_all(socket)
            assert "lock" in image_io(folder / "one.raw", "raw", "write 0 64k").stderr


@asynccontextmanager
async def handler_over_source(
    folder: Path, of: tuple[LinkMember, ...], link: Ends
) -> AsyncIterator[tuple[Session, LetGo]]:
    """A proxy over a source that gives up its right to write, as a QEMU does at the switchover."""
    async with source(folder, of) as held, handler(folder, proxy_argv(folder, of, link)) as session:

        async def let_go() -> None:
            for each in of:
                await exports.delete(held, f"w-{each.suid}")

        yield session, let_go


async def test_a_device_without_space_on_the_target_is_written_here(folder: Path) -> None:
    of, link = (member(folder, "one", writable=True),), ends(folder, "tls")
    async with handler(folder, image_argv(folder, of, link)):
        async with target(folder, of, link, writable=True) as socket:
            assert image_io(nbd_uri(socket, "one"), "raw", "write -P 0xee 0 64k", "flush").returncode == 0
    assert reads(folder / "one.raw", "raw", "0xee 0 64k", f"{ord('o')} 64k 64k")


async def test_a_device_of_the_other_kind_is_not_written(folder: Path) -> None:
    of, link = (member(folder, "one"),), ends(folder, "ssh")
    async with handler(folder, image_argv(folder, of, link)):
        done = image_io(nbd_uri(f"{folder}/link.sock", EXPORTS["one"]), "raw", "write -P 0xee 0 64k")
        assert done.returncode != 0
    assert reads(folder / "one.raw", "raw", f"{ord('o')} 0 8M")


async def test_a_member_whose_data_is_further_upstream_is_served_whole(folder: Path) -> None:
    """A guest that has come from elsewhere and goes on: its overlay here lies over the path handler there."""
    base, first = member(folder, "one"), ends(folder, "tls", "first")
    (folder / "up").mkdir()
    overlay = create(folder / "overlay.qcow2", "qcow2")
    fill(overlay, "qcow2", "0x11 0 64k")
    upstream = Link(first.reach, base.export)
    of = (LinkMember("one", (Image(str(overlay), "qcow2"), upstream), "esd-second", SIZE),)
    second = ends(folder, "tls", "second")
    argv = path_handler.image_argv((base,), first.listen, f"{folder}/up/control.sock")
    async with handler(folder / "up", argv), handler(folder, image_argv(folder, of, second)) as session:
        assert {names.credentials("first"), names.credentials("second")} <= await machine.objects(session)
        async with target(folder, of, second) as socket:
            assert reads(nbd_uri(socket, "one"), "raw", "0x11 0 64k", f"{ord('o')} 64k 1M")


async def test_one_key_for_all_devices_of_a_link(folder: Path) -> None:
    of, link = members(folder), ends(folder, "tls")
    argv = image_argv(folder, of, link)
    assert argv.count("--object") == 1


async def test_another_key_is_refused(folder: Path) -> None:
    of, link = (member(folder, "one"),), ends(folder, "tls")
    key_folder(folder / "there" / "0badcafe", "cd" * 32)
    async with handler(folder, image_argv(folder, of, link)):
        # Without the patience that a real link has.
        opened = {**nodes.link("link", Link(link.reach, EXPORTS["one"])), "open-timeout": 0}
        with pytest.raises(NotStartedError, match="TLS"):
            async with storage_daemon(*objects(nodes.tls_object(link.reach, "client")), *blockdevs([opened])):
                pass


async def test_without_a_key_nothing_is_shown(folder: Path) -> None:
    of, link = (member(folder, "one"),), ends(folder, "tls")
    async with handler(folder, image_argv(folder, of, link)):
        assert isinstance(link.reach, TlsTcp)
        done = image_io(f"nbd://127.0.0.1:{link.reach.port}/{EXPORTS['one']}", "raw", "read 0 4k")
        assert done.returncode != 0
        assert "TLS" in done.stderr


async def test_an_export_has_no_name_that_can_be_guessed(folder: Path) -> None:
    of, link = (member(folder, "one"),), ends(folder, "ssh")
    async with handler(folder, image_argv(folder, of, link)):
        for guess in ("one", "", names.served("one")):
            assert image_io(nbd_uri(f"{folder}/link.sock", guess), "raw", "read 0 4k").returncode != 0


def test_a_reopen_names_the_node_that_was_started_with(tmp_path: Path) -> None:
    """The options that a reopen does not repeat would fall back to their defaults."""
    one = LinkMember("one", (Image("/x", "raw"),), "esd-1", SIZE)
    first, second = path_handler.served(one, names.proxy("one")), path_handler.served(one, names.image("one"))
    assert {**first, "file": None} == {**second, "file": None}
    assert (first["file"], second["file"]) == (names.proxy("one"), names.image("one"))


def test_unix_sockets_need_no_key() -> None:
    assert nodes.tls_object(UnixPath("/x"), "client") is None
