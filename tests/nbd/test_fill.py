"""Filling an overlay through a real storage daemon: exactly what was asked for, and errors are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_esd.nbd import (
    ALLOCATION_DEPTH,
    BASE_ALLOCATION,
    Client,
    Extent,
    FillError,
    NbdError,
    Range,
    Where,
    absent,
    fill,
    residency,
)
from tests.nbd.daemon import FILL, MAP, copy_on_read, daemon, export, failing, file, node
from tests.nbd.images import (
    BASE_DATA,
    CLUSTER,
    KIB,
    LOCAL_DATA,
    MIB,
    SIZE,
    Images,
    create_qcow2,
    forget_backing,
    image_map,
    same_content,
)

BOTH = (ALLOCATION_DEPTH, BASE_ALLOCATION)
LOCAL = [Range(offset, length) for offset, length, _ in LOCAL_DATA]
TOUCHED = [*BASE_DATA, *((part.offset, part.length) for part in LOCAL)]
DATA_CLUSTERS = len({at // CLUSTER for start, size in TOUCHED for at in range(start, start + size, 4 * KIB)})


async def local_ranges(client: Client) -> list[Range]:
    extents = (await client.map(ALLOCATION_DEPTH))[ALLOCATION_DEPTH]
    assert sum(extent.length for extent in extents) == SIZE
    return [Range(extent.offset, extent.length) for extent in extents if extent.flags == 1]


async def test_depth_before_is_what_the_overlay_holds(tmp_path: Path, images: Images) -> None:
    async with (
        daemon(tmp_path, copy_on_read(images)) as running,
        running.open(MAP, ALLOCATION_DEPTH) as client,
    ):
        assert client.size == SIZE
        assert await local_ranges(client) == LOCAL


async def test_fills_exactly_the_ranges(tmp_path: Path, images: Images) -> None:
    data, hole = Range(1 * MIB, 512 * KIB), Range(5 * MIB, 1 * MIB)
    done: list[int] = []
    async with daemon(tmp_path, copy_on_read(images)) as running:
        async with running.open(FILL) as filler, running.open(MAP, ALLOCATION_DEPTH) as mapper:
            failed = await fill(filler, [data, hole], chunk=256 * KIB, on_progress=done.append)
            assert failed == []
            assert await local_ranges(mapper) == [data, LOCAL[0], hole, LOCAL[1]]
    assert sum(done) == data.length + hole.length


async def test_residency_tells_local_remote_and_hole(tmp_path: Path, images: Images) -> None:
    async with daemon(tmp_path, copy_on_read(images)) as running:
        async with running.open(MAP, BASE_ALLOCATION, ALLOCATION_DEPTH) as client:
            maps = await client.map()
    found = residency(maps[ALLOCATION_DEPTH], maps[BASE_ALLOCATION])
    local = sum(part.length for part in LOCAL)
    remote = sum(length for _, length in BASE_DATA) - CLUSTER  # one local cluster covers data of the base
    assert (found.local_bytes, found.remote_bytes) == (local, remote)
    assert found.hole_bytes == SIZE - local - remote
    assert [part.state for part in found.ranges] == [
        "hole", "remote", "hole", "local", "hole", "remote", "hole", "local", "remote", "hole", "remote",
    ]  # fmt: skip


async def test_flushed_fill_survives_a_kill_and_needs_no_base(tmp_path: Path, images: Images) -> None:
    async with daemon(tmp_path, copy_on_read(images)) as running:
        async with running.open(FILL) as filler, running.open(MAP, ALLOCATION_DEPTH) as mapper:
            missing = absent((await mapper.map())[ALLOCATION_DEPTH])
            assert await fill(filler, missing) == []
            assert (await mapper.map())[ALLOCATION_DEPTH] == [Extent(0, SIZE, 1)]
            await filler.flush()
            await running.kill()
    forget_backing(images.overlay)
    assert same_content(images.overlay, images.expected)


async def test_holes_stay_sparse(tmp_path: Path, images: Images) -> None:
    async with daemon(tmp_path, copy_on_read(images)) as running:
        async with (
            running.open(FILL) as filler,
            running.open(MAP, ALLOCATION_DEPTH, BASE_ALLOCATION) as mapper,
        ):
            maps = await mapper.map()
            found = residency(maps[ALLOCATION_DEPTH], maps[BASE_ALLOCATION])
            assert await fill(filler, found.where(Where.REMOTE)) == []
            assert await fill(filler, found.where(Where.HOLE)) == []
            await filler.flush()
    entries = image_map(images.overlay)
    assert {entry["depth"] for entry in entries} == {0}
    assert sum(int(str(entry["length"])) for entry in entries if entry["data"]) == DATA_CLUSTERS * CLUSTER
    assert all(entry["zero"] for entry in entries if not entry["data"])
    assert images.overlay.stat().st_blocks * 512 < DATA_CLUSTERS * CLUSTER + MIB


async def test_an_error_is_told_of_its_chunk_only(tmp_path: Path, images: Images) -> None:
    bad = 2 * MIB + 100 * KIB
    done: list[int] = []
    options = copy_on_read(images, failing(images, bad))
    async with daemon(tmp_path, options) as running:
        async with running.open(FILL) as filler, running.open(MAP, ALLOCATION_DEPTH) as mapper:
            failed = await fill(filler, [Range(0, SIZE)], chunk=MIB, on_progress=done.append)
            assert failed == [FillError(2 * MIB, MIB, 5)]
            assert sum(done) == SIZE - MIB
            missing = absent((await mapper.map())[ALLOCATION_DEPTH])
            await filler.flush()
    assert missing
    assert all(part.offset >= 2 * MIB and part.end <= 3 * MIB for part in missing)
    async with daemon(tmp_path, copy_on_read(images)) as running, running.open(FILL) as filler:
        assert await fill(filler, [Range(error.offset, error.length) for error in failed]) == []
        await filler.flush()
    forget_backing(images.overlay)
    assert same_content(images.overlay, images.expected)


async def test_a_map_has_all_but_the_cluster_of_which_nothing_can_be_told(tmp_path: Path, images: Images) -> None:
    """By both contexts in one request: QEMU fails it for the first, and answers for the second all the same."""
    bad = 2 * MIB + 100 * KIB
    async with daemon(tmp_path, copy_on_read(images)) as running, running.open(MAP, *BOTH) as client:
        whole = await client.map()
    async with daemon(tmp_path, copy_on_read(images, failing(images, bad, "block-status"))) as running:
        async with running.open(MAP, *BOTH) as client:
            found = await client.map()
    missing, known = (residency(maps[ALLOCATION_DEPTH], maps[BASE_ALLOCATION]) for maps in (found, whole))
    assert missing.missing() == known.missing()
    assert missing.remote_bytes - known.remote_bytes in range(CLUSTER + 1)


async def test_nothing_more_is_tried_when_enough_has_failed(tmp_path: Path, images: Images) -> None:
    everywhere = {"event": "none", "iotype": "read", "errno": 5}
    options = copy_on_read(images, {"driver": "blkdebug", "image": file(images.base), "inject-error": [everywhere]})
    async with daemon(tmp_path, options) as running, running.open(FILL) as client:
        failed = await fill(client, [Range(0, SIZE)], chunk=CLUSTER, depth=1, give_up=3)
    assert len(failed) == 3


async def test_a_failed_small_read_leaves_the_connection_in_order(tmp_path: Path, images: Images) -> None:
    bad = 2 * MIB
    options = copy_on_read(images, failing(images, bad))
    async with daemon(tmp_path, options) as running, running.open(FILL) as client:
        with pytest.raises(NbdError) as caught:
            await client.read_small(bad, 4096)
        assert (caught.value.errno, caught.value.offset, caught.value.length) == (5, bad, 4096)
        offset, length, byte = LOCAL_DATA[0]
        assert await client.read_small(offset + length - 4096, 4096) == bytes([byte]) * 4096


async def test_a_cache_beyond_the_servers_limit_is_an_error(tmp_path: Path) -> None:
    options = [*node("large", "null-co", size=1 << 30), *export("large", "large")]
    async with daemon(tmp_path, options) as running, running.open("large") as client:
        with pytest.raises(NbdError) as caught:
            await client.cache(0, 64 * MIB)
        assert caught.value.errno == 22
        with pytest.raises(ValueError, match="chunks of"):
            await fill(client, [Range(0, 64 * MIB)], chunk=64 * MIB)


async def test_an_odd_size_is_filled_to_its_end(tmp_path: Path, images: Images) -> None:
    size = 3 * MIB + 512
    with images.base.open("r+b") as base:
        base.truncate(size)
    images.overlay.unlink()
    options = copy_on_read(images)
    create_qcow2(images.overlay, size, "-b", str(images.base), "-F", "raw")
    async with daemon(tmp_path, options) as running:
        async with running.open(FILL) as filler, running.open(MAP, ALLOCATION_DEPTH) as mapper:
            assert await fill(filler, absent((await mapper.map())[ALLOCATION_DEPTH])) == []
            assert (await mapper.map())[ALLOCATION_DEPTH] == [Extent(0, size, 1)]
