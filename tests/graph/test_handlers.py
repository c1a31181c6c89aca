"""Each read handler's graph in a real QEMU: what a read of absent data does, what stays, and where writes go."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from qemu_esd import nbd
from qemu_esd.errors import QemuError
from qemu_esd.graph import names, nodes, path_handler
from qemu_esd.graph.handlers import HANDLERS, overlays
from qemu_esd.hosts import qemu_img
from qemu_esd.hosts.local import LocalHost
from qemu_esd.model.disk import Image, Link, UnixPath
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import LinkMember
from qemu_esd.nbd import walk
from qemu_esd.qmp import blockdev, exports
from qemu_esd.qmp.session import Session
from tests.support.links import TRANSPORTS, Ends, ends
from tests.support.qemu import (
    blockdevs,
    create,
    fill,
    image_io,
    nbd_uri,
    objects,
    qemu_session,
    reads,
    storage_daemon_by,
)

MIB, CLUSTER = 1 << 20, overlays.CLUSTER
SUID = "z" * 20
SIZE = 8 << 20
ANSWERED = [Handler.REDIRECT, Handler.BACKGROUND, Handler.ON_DEMAND]


@asynccontextmanager
async def source(folder: Path, transport: str, *, writable: bool = False) -> AsyncIterator[Link]:
    """A path handler that holds an image full of 0xa1: the link by which its data is reached."""
    image = create(folder / "source.raw", "raw")
    fill(image, "raw", "0xa1 0 8M")
    link: Ends = ends(folder, transport)
    member = LinkMember(SUID, (Image(str(image), "raw"),), "esd-export", SIZE, writable)
    async with storage_daemon_by(*path_handler.image_argv((member,), link.listen, f"{folder}/control.sock")):
        yield Link(link.reach, "esd-export")


async def member(folder: Path, handler: Handler, block: int = 512) -> Image:
    """The empty overlay that a migration makes on the target."""
    path = str(folder / "overlay.qcow2")
    await qemu_img.create_overlay(LocalHost(), path, SIZE, HANDLERS[handler].overlay_options(block))
    return Image(path, "qcow2")


@dataclass(frozen=True)
class Target:
    """A QEMU with the handler's nodes. Its NBD server shows the guest's disk as `top`, and the overlay as `map`."""

    session: Session
    socket: str

    def io(self, *commands: str) -> subprocess.CompletedProcess[str]:
        """Requests of the guest's disk."""
        return image_io(nbd_uri(self.socket, "top"), "raw", *commands)

    def reads(self, *patterns: str) -> bool:
        return reads(nbd_uri(self.socket, "top"), "raw", *patterns)

    async def local(self) -> set[tuple[int, int]]:
        """Offset and end of what the overlay itself has."""
        reader, writer = await asyncio.open_unix_connection(self.socket)
        async with nbd.open(reader, writer, "map", [nbd.ALLOCATION_DEPTH]) as client:
            extents = (await client.map())[nbd.ALLOCATION_DEPTH]
        return {(extent.offset, extent.end) for extent in extents if extent.flags == 1}


@asynccontextmanager
async def qemu_with(folder: Path, link: Link | None, made: Sequence[nodes.Node]) -> AsyncIterator[Target]:
    """A QEMU with these nodes; the last of them is under the guest's disk."""
    credentials = nodes.tls_object(link.endpoint, "client") if link else None
    async with qemu_session(folder, *objects(credentials), *blockdevs(made)) as session:
        await exports.serve_unix(session, f"{folder}/qemu.sock")
        await exports.add_writable(session, "top", made[-1]["node-name"], "top")
        if names.overlay(SUID) in await blockdev.names(session):
            await exports.add(session, "map", names.overlay(SUID), "map", depth=True)
        yield Target(session, f"{folder}/qemu.sock")


@asynccontextmanager
async def target(folder: Path, handler: Handler, link: Link, block: int = 512) -> AsyncIterator[Target]:
    """A QEMU with the handler's nodes over the overlay that a migration makes."""
    made = HANDLERS[handler].nodes_of(SUID, await member(folder, handler, block), link, SIZE)
    async with qemu_with(folder, link, made) as running:
        yield running


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("handler", ANSWERED)
async def test_a_read_of_absent_data_is_answered_by_the_source(folder: Path, handler: Handler, transport: str) -> None:
    async with source(folder, transport) as link, target(folder, handler, link) as qemu:
        assert qemu.reads("0xa1 1M 4k")
        assert await qemu.local() == ({(MIB, MIB + CLUSTER)} if handler.keeps_reads else set())


@pytest.mark.parametrize("handler", ANSWERED)
async def test_a_write_stays_here_and_the_source_does_not_see_it(folder: Path, handler: Handler) -> None:
    async with source(folder, "ssh") as link, target(folder, handler, link) as qemu:
        assert qemu.io("write -P 0xb2 4k 4k").returncode == 0
        # The rest of the cluster came with the write.
        assert await qemu.local() == {(0, CLUSTER)}
        assert qemu.reads("0xa1 0 4k", "0xb2 4k 4k", "0xa1 8k 56k")
    assert reads(folder / "source.raw", "raw", "0xa1 0 8M")


@pytest.mark.parametrize("handler", list(Handler))
async def test_the_guests_disk_is_on_the_last_of_its_nodes(folder: Path, handler: Handler) -> None:
    async with source(folder, "ssh") as link, target(folder, handler, link) as qemu:
        made = HANDLERS[handler].nodes_of(SUID, Image("/x", "qcow2"), link, SIZE)
        assert made[-1]["node-name"] == HANDLERS[handler].top(SUID)
        assert {names.overlay(SUID), names.file(SUID)} <= await blockdev.names(qemu.session)


async def test_discards_are_ignored_while_data_is_missing(folder: Path) -> None:
    """A discard that races with an allocating write corrupts a qcow2 (7.2.22 and 10.2.2)."""
    async with source(folder, "ssh") as link, target(folder, Handler.REDIRECT, link) as qemu:
        assert qemu.io("write -P 0xb2 0 64k", "discard 0 64k").returncode == 0
        assert qemu.reads("0xb2 0 64k")


def test_the_clusters_of_an_overlay_are_the_same_for_all() -> None:
    assert overlays.CLUSTER == walk.UNTOLD
    # An entry has 8 bytes.
    assert overlays.L2_CACHE // 8 * overlays.CLUSTER == 256 << 30


@pytest.mark.parametrize("handler", [Handler.BACKGROUND, Handler.ON_DEMAND])
def test_what_keeps_reads_is_never_over_subclusters(handler: Handler) -> None:
    """copy-on-read above them aborts QEMU below 8.1; redirect may be changed to it while the guest runs."""
    for each in (handler, Handler.REDIRECT):
        assert "extended_l2" not in HANDLERS[each].overlay_options(512)


def test_a_miss_is_told_to_the_guest_whatever_is_wanted() -> None:
    assert {handler: HANDLERS[handler].READ_ERRORS for handler in Handler} == {
        Handler.MISS: "report",
        Handler.REDIRECT: None,
        Handler.BACKGROUND: None,
        Handler.ON_DEMAND: None,
    }


# ---- miss


@asynccontextmanager
async def missing(folder: Path, block: int) -> AsyncIterator[Target]:
    """A QEMU whose disk has nothing and no source."""
    async with target(folder, Handler.MISS, Link(UnixPath("/nonexistent"), "nobody"), block) as qemu:
        yield qemu


BLOCKS = pytest.mark.parametrize("block", [512, 4096])


@BLOCKS
async def test_a_read_of_absent_data_misses(folder: Path, block: int) -> None:
    async with missing(folder, block) as qemu:
        for where in (f"0 {block}", f"{block} {block}", "0 1M", "4M 64k"):
            assert "read failed" in qemu.io(f"read {where}").stdout, where
        assert await qemu.local() == set()


@BLOCKS
@pytest.mark.parametrize("command", ["write -P 0xb2 {0} {1}", "write -z {0} {1}", "discard {0} {1}", "flush"])
async def test_nothing_but_a_read_misses(folder: Path, block: int, command: str) -> None:
    """One block of the guest, in the middle of a cluster of which nothing is there."""
    async with missing(folder, block) as qemu:
        done = qemu.io(command.format(5 * block, block))
        assert (done.returncode, "failed" in done.stdout, done.stderr) == (0, False, "")


@BLOCKS
@pytest.mark.parametrize(("write", "pattern"), [("write -P 0xb2", "0xb2"), ("write -z", "0")])
async def test_what_was_written_is_read_and_what_is_beside_it_misses(
    folder: Path, block: int, write: str, pattern: str
) -> None:
    async with missing(folder, block) as qemu:
        assert qemu.io(f"{write} {5 * block} {block}").returncode == 0
        assert qemu.reads(f"{pattern} {5 * block} {block}")
        for beside in (4 * block, 6 * block):
            assert "read failed" in qemu.io(f"read {beside} {block}").stdout


async def test_a_coarser_overlay_would_miss_on_writes_too(folder: Path) -> None:
    """Why miss has subclusters, and why a change to it stacks another overlay."""
    image = await member(folder, Handler.REDIRECT)
    async with qemu_with(
        folder, None, [nodes.missing("absent", SIZE), overlays.overlay(SUID, image, "absent")]
    ) as qemu:
        assert "write failed" in qemu.io("write 4k 4k").stdout


# ---- the member's header


@pytest.mark.parametrize("handler", list(Handler))
async def test_an_overlay_opened_alone_fails(folder: Path, handler: Handler) -> None:
    """It would show zeros where data is missing, and nobody would notice."""
    image = await member(folder, handler)
    done = image_io(image.path, "qcow2", "read 0 4k")
    assert done.returncode != 0
    assert "qemu-esd" in done.stderr


@pytest.mark.parametrize("handler", list(Handler))
async def test_an_overlay_is_as_large_as_the_disk_and_ours_alone(folder: Path, handler: Handler) -> None:
    image = await member(folder, handler)
    assert await qemu_img.virtual_size(LocalHost(), image.path, "qcow2") == SIZE
    assert Path(image.path).stat().st_mode & 0o777 == 0o600


# ---- no local space


async def test_a_disk_without_local_space_reads_from_the_source_and_later_writes_there(folder: Path) -> None:
    async with source(folder, "tls", writable=True) as link:
        credentials = nodes.tls_object(link.endpoint, "client")
        async with qemu_session(folder, *objects(credentials), *blockdevs(nodes.remote_only(SUID, link))) as session:
            await exports.serve_unix(session, f"{folder}/qemu.sock")
            await exports.add(session, "reader", names.served(SUID), "reader")
            assert reads(nbd_uri(f"{folder}/qemu.sock", "reader"), "raw", "0xa1 0 8M")
            with pytest.raises(QemuError, match="read-only"):
                await exports.add_writable(session, "writer", names.served(SUID), "writer")
            await blockdev.add(session, nodes.link(names.remote_writable(SUID), link, writable=True))
            await blockdev.reopen(session, nodes.face(SUID, names.remote_writable(SUID)))
            await blockdev.delete(session, names.remote(SUID))
            await exports.add_writable(session, "writer", names.served(SUID), "writer")
            assert image_io(nbd_uri(f"{folder}/qemu.sock", "writer"), "raw", "write -P 0xb2 0 64k").returncode == 0
    assert reads(folder / "source.raw", "raw", "0xb2 0 64k", "0xa1 64k 64k")
