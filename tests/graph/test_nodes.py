"""Chains as a real storage daemon opens them: whole, trusting no header, and fenced against other writers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from qemu_esd.errors import QemuError
from qemu_esd.graph import names, nodes
from qemu_esd.graph.handlers import overlays
from qemu_esd.model.disk import Chain, Image
from qemu_esd.qmp import blockdev, exports, jobs
from qemu_esd.qmp.session import Session
from tests.support.qemu import blockdevs, create, daemon_session, fill, image_io, look_io, nbd_uri, reads

# As long as a SUID may be, so that names come out as long as they get.
SUID = "x" * 20
TOP = names.image(SUID)
READ_ONLY, WRITABLE = True, False


@asynccontextmanager
async def served(folder: Path, *opened: nodes.Node, writable: bool = False) -> AsyncIterator[tuple[Session, str]]:
    """A daemon that has opened these nodes and exports TOP: its session, and the export's URI."""
    async with daemon_session(folder, *blockdevs(opened)) as session:
        await exports.serve_unix(session, f"{folder}/nbd")
        add = exports.add_writable if writable else exports.add
        await add(session, "out", TOP, "out")
        yield session, nbd_uri(folder / "nbd", "out")


def layers(folder: Path, depth: int) -> Chain:
    """A chain of qcow2 images over a raw one; layer N holds N at N * 64 KiB. Their headers name what is not there."""
    base = create(folder / "0", "raw")
    fill(base, "raw", "0x7f 0 1M")
    chain = [Image(str(base), "raw")]
    for number in range(1, depth):
        path = create(folder / str(number), "qcow2")
        fill(path, "qcow2", f"{number} {number * 64}k 64k")
        subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "/nonexistent", "-F", "raw", path], check=True)
        chain.insert(0, Image(str(path), "qcow2"))
    return tuple(chain)


def patterns(depth: int) -> list[str]:
    return ["0x7f 0 64k", *(f"{number} {number * 64}k 64k" for number in range(1, depth))]


@pytest.mark.parametrize("depth", [1, 2, 12])
@pytest.mark.parametrize("read_only", [READ_ONLY, WRITABLE], ids=["read-only", "writable"])
async def test_a_chain_is_opened_whole_to_its_last_layer(folder: Path, depth: int, read_only: bool) -> None:
    opened = nodes.fenced(TOP, layers(folder, depth), read_only=read_only)
    async with served(folder, *opened, writable=not read_only) as (session, uri):
        assert reads(uri, "raw", *patterns(depth))
        assert len([name for name in await blockdev.names(session) if name.startswith("esd-")]) == depth


async def test_the_names_of_a_chain_do_not_meet_those_of_other_nodes(folder: Path) -> None:
    made = {node["node-name"] for node in nodes.fenced(TOP, layers(folder, 5), read_only=True)}
    roles = (names.overlay, names.file, names.copy_on_read, names.remote, names.served, names.proxy, names.sink)
    assert len(made) == 5
    assert not made & {role(SUID) for role in roles}


async def test_a_raw_image_with_a_qcow2_header_is_bytes(folder: Path) -> None:
    """The guest can write any header into its raw disk; whoever probed it would open what the header names."""
    create(folder / "secret", "raw", "1M")
    evil = create(folder / "disk", "qcow2", "1M", "-u", "-b", str(folder / "secret"), "-F", "raw")
    async with served(folder, *nodes.fenced(TOP, (Image(str(evil), "raw"),), read_only=True)) as (session, uri):
        assert reads(uri, "raw", "0x51 0 1")  # the Q of the header's magic
        assert "backing-image" not in (await blockdev.named(session))[TOP]["image"]


async def test_a_qcow2_without_a_backing_of_ours_has_none(folder: Path) -> None:
    create(folder / "other", "raw", "8M")
    path = create(folder / "disk", "qcow2", "8M", "-b", str(folder / "other"), "-F", "raw")
    async with served(folder, *nodes.fenced(TOP, (Image(str(path), "qcow2"),), read_only=True)) as (session, _):
        opened = (await blockdev.named(session)).values()
        assert not [node for node in opened if node["file"].endswith("/other")]


@pytest.mark.parametrize("direct", [True, False])
async def test_the_cache_mode_of_the_last_user_is_kept(folder: Path, direct: bool) -> None:
    path = create(folder / "disk", "raw")
    chain = (Image(str(path), "raw", direct),)
    async with served(folder, *nodes.fenced(TOP, chain, read_only=True)) as (session, _):
        files = [node for node in (await blockdev.named(session)).values() if node["drv"] == "file"]
        assert [node["cache"]["direct"] for node in files] == [direct]


# ---- what is below an overlay at home


@pytest.mark.parametrize("depth", [1, 2, 8])
async def test_images_of_this_host_are_opened_whole_and_only_to_be_read(folder: Path, depth: int) -> None:
    images = tuple(layer for layer in layers(folder, depth) if isinstance(layer, Image))
    async with served(folder, *nodes.whole(TOP, images)) as (session, uri):
        assert reads(uri, "raw", *patterns(depth))
        opened = await blockdev.named(session)
        assert all(node["ro"] for node in opened.values())
        assert len([name for name in opened if name.startswith("esd-")]) == depth


async def test_the_header_of_an_overlay_calls_a_raw_backing_raw(folder: Path) -> None:
    """Whatever its guest has written into it."""
    below = (Image(str(create(folder / "disk", "qcow2", "1M")), "raw"),)
    size = Path(below[0].path).stat().st_size
    path = str(create(folder / "overlay", "qcow2", str(size), "-u", "-b", "/nonexistent", "-F", "raw"))
    overlay = overlays.overlay(SUID, Image(path, "qcow2"), TOP)
    async with daemon_session(folder, *blockdevs((*nodes.whole(TOP, below), overlay))) as session:
        for _ in range(2):
            await jobs.write_backing(session, "name", names.overlay(SUID), TOP, below[0].path)
        assert await jobs.running(session) == {}
        assert backing_of(path) == (below[0].path, "raw")


def backing_of(path: str) -> tuple[str, str]:
    told = json.loads(subprocess.check_output(["qemu-img", "info", "-U", "--output=json", "-f", "qcow2", path]))
    return told["backing-filename"], told["backing-filename-format"]


# ---- the fence


def one(folder: Path, format: str) -> Chain:
    path = create(folder / "disk", format)
    fill(path, format, "0xa1 0 1M")
    return (Image(str(path), format),)


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("read_only", [READ_ONLY, WRITABLE], ids=["read-only", "writable"])
async def test_a_fenced_image_keeps_a_second_writer_out(folder: Path, format: str, read_only: bool) -> None:
    chain = one(folder, format)
    path = folder / "disk"
    async with served(folder, *nodes.fenced(TOP, chain, read_only=read_only)) as (_, uri):
        refused = image_io(path, format, "write -P 0xbb 0 64k")
        assert refused.returncode != 0
        assert "lock" in refused.stderr
        assert reads(uri, "raw", "0xa1 0 1M")
    assert image_io(path, format, "write -P 0xbb 0 64k").returncode == 0


@pytest.mark.parametrize("format", ["raw", "qcow2"])
async def test_a_fenced_image_can_be_written_by_its_holder_alone(folder: Path, format: str) -> None:
    chain = one(folder, format)
    async with served(folder, *nodes.fenced(TOP, chain, read_only=False), writable=True) as (_, uri):
        assert image_io(uri, "raw", "write -P 0xcc 0 64k").returncode == 0
        assert reads(uri, "raw", "0xcc 0 64k", "0xa1 64k 64k")
    assert reads(folder / "disk", format, "0xcc 0 64k", "0xa1 64k 64k")


@pytest.mark.parametrize("read_only", [READ_ONLY, WRITABLE], ids=["read-only", "writable"])
async def test_no_layer_of_a_fenced_chain_can_be_written(folder: Path, read_only: bool) -> None:
    chain = layers(folder, 3)
    async with served(folder, *nodes.fenced(TOP, chain, read_only=read_only)):
        for layer in chain:
            assert isinstance(layer, Image)
            refused = image_io(layer.path, layer.format, "write 0 64k")
            assert (refused.returncode != 0, "lock" in refused.stderr) == (True, True), layer


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("read_only", [READ_ONLY, WRITABLE], ids=["read-only", "writable"])
async def test_an_image_that_somebody_writes_to_cannot_be_fenced(folder: Path, format: str, read_only: bool) -> None:
    """The gate: while the guest runs on the image, a path handler that tries to take it is refused."""
    chain = one(folder, format)
    (folder / "guest").mkdir()
    writer = nodes.fenced(TOP, chain, read_only=False)[0]
    plain = {**writer, "file": nodes.file_node(Image(str(folder / "disk"), format))}
    async with served(folder / "guest", plain, writable=True), daemon_session(folder) as handler:
        with pytest.raises(QemuError, match="lock"):
            await blockdev.add_all(handler, nodes.fenced(TOP, chain, read_only=read_only))
        assert await blockdev.names(handler) == frozenset()


async def test_somebody_may_look_at_a_fenced_image(folder: Path) -> None:
    """`qemu-img info` and `map` of an image that is in use (-U) stay possible."""
    async with served(folder, *nodes.fenced(TOP, one(folder, "raw"), read_only=True)):
        assert look_io(folder / "disk", "raw", "read -P 0xa1 0 64k").returncode == 0
