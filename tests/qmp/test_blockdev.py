"""Block nodes, exports and jobs in a real QEMU with a guest's device."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from qemu_esd.errors import QemuError, TimedOutError
from qemu_esd.hosts.local import LocalHost
from qemu_esd.qmp import blockdev, exports, jobs
from qemu_esd.qmp.session import Session, open_session
from tests.support.qemu import blockdevs, create, daemon_session, fill, image_io, nbd_uri, option, qemu, reads

MIB = 1 << 20
QDEV = "/machine/peripheral/vda/virtio-backend"
CONCLUDED, READY = frozenset({"concluded"}), frozenset({"ready", "concluded"})


def null(name: str, **more: Any) -> dict[str, Any]:
    return {"driver": "null-co", "node-name": name, "size": MIB, "read-zeroes": True, **more}


def failing(folder: Path, name: str) -> dict[str, Any]:
    """A disk full of data of which nothing can be read."""
    image = create(folder / name, "raw", "1M")
    fill(image, "raw", "0xa1 0 1M")
    rule = {"event": "none", "iotype": "read", "errno": 5}
    file = {"driver": "file", "filename": str(image)}
    return {"driver": "blkdebug", "node-name": name, "image": file, "inject-error": [rule]}


@asynccontextmanager
async def machine(folder: Path, *nodes: dict[str, Any]) -> AsyncIterator[Session]:
    """A stopped guest with a disk on the first of these nodes."""
    made = [word.replace("--blockdev", "-blockdev") for word in blockdevs(nodes)]
    device = f"virtio-blk-pci,id=vda,drive={nodes[0]['node-name']}"
    monitor = f"unix:{option(f'{folder}/qmp')},server=on,wait=off"
    async with qemu("-machine", "q35", "-m", "16", *made, "-device", device, "-qmp", monitor):
        async with open_session(LocalHost(), f"{folder}/qmp", "vm") as session:
            yield session


# ---- nodes


async def test_nodes_are_added_in_order_and_deleted(folder: Path) -> None:
    async with daemon_session(folder) as session:
        await blockdev.add_all(session, (null("a"), {"driver": "raw", "node-name": "b", "file": "a"}))
        assert await blockdev.names(session) == {"a", "b"}
        assert {name: node["drv"] for name, node in (await blockdev.named(session)).items()} == {
            "a": "null-co",
            "b": "raw",
        }
        for name in ("b", "a"):
            await blockdev.delete(session, name)
        assert await blockdev.names(session) == frozenset()


async def test_if_one_is_refused_none_stays(folder: Path) -> None:
    async with daemon_session(folder, *blockdevs([null("mine")])) as session:
        with pytest.raises(QemuError, match="nonexistent"):
            bad = {"driver": "file", "node-name": "bad", "filename": "/nonexistent"}
            await blockdev.add_all(session, (null("a"), {"driver": "raw", "node-name": "b", "file": "a"}, bad))
        assert await blockdev.names(session) == {"mine"}


async def test_a_reopen_puts_another_node_below(folder: Path) -> None:
    async with daemon_session(folder, *blockdevs([null("a"), null("b")])) as session:
        raw = {"driver": "raw", "node-name": "top", "file": "a"}
        await blockdev.add(session, raw)
        await blockdev.reopen(session, {**raw, "file": "b"})
        await blockdev.delete(session, "a")
        with pytest.raises(QemuError):
            await blockdev.delete(session, "b")


async def test_nodes_are_swapped_under_a_device(folder: Path) -> None:
    async with machine(folder, null("a"), null("b")) as session:
        assert await blockdev.under(session, QDEV) == "a"
        for node in ("b", "b", "a"):
            await blockdev.swap(session, QDEV, node)
            assert await blockdev.under(session, QDEV) == node
        assert [row["inserted"]["node-name"] for row in await blockdev.devices(session)] == ["a"]


async def test_a_device_that_was_unplugged_has_no_node(folder: Path) -> None:
    async with machine(folder, null("a")) as session:
        gone = "/machine/peripheral/vdb/virtio-backend"
        with pytest.raises(QemuError, match=f"there is no block device {gone}"):
            await blockdev.under(session, gone)


async def test_an_overlay_is_put_above_a_node_for_all_its_users(folder: Path) -> None:
    create(folder / "over", "qcow2", "1M", "-o", "cluster_size=16k,extended_l2=on")
    create(folder / "plain", "qcow2", "1M")
    overlays = [
        {
            "driver": "qcow2",
            "node-name": name,
            "file": {"driver": "file", "filename": f"{folder}/{name}"},
            "backing": None,
        }
        for name in ("over", "plain")
    ]
    async with machine(folder, null("a"), *overlays) as session:
        await blockdev.snapshot(session, "a", "over")
        assert await blockdev.under(session, QDEV) == "over"
        assert await blockdev.has_subclusters(session, "over")
        assert not await blockdev.has_subclusters(session, "plain")


# ---- exports


async def test_exports_are_served_to_read_or_to_write(folder: Path) -> None:
    image = create(folder / "disk", "raw", "1M")
    fill(image, "raw", "0xa1 0 1M")
    node = {"driver": "raw", "node-name": "disk", "file": {"driver": "file", "filename": str(image)}}
    async with daemon_session(folder, *blockdevs([node])) as session:
        await exports.serve_unix(session, f"{folder}/nbd")
        await exports.add(session, "r", "disk", "to-read")
        await exports.add_writable(session, "w", "disk", "to-write")
        assert await exports.ids(session) == {"r", "w"}
        assert image_io(nbd_uri(folder / "nbd", "to-read"), "raw", "write 0 4k").returncode != 0
        assert image_io(nbd_uri(folder / "nbd", "to-write"), "raw", "write -P 0xb2 0 4k").returncode == 0
        assert reads(nbd_uri(folder / "nbd", "to-read"), "raw", "0xb2 0 4k", "0xa1 4k 4k")
        await exports.delete(session, "w")
        assert await exports.ids(session) == {"r"}
        with pytest.raises(QemuError):
            await exports.delete(session, "w")


async def test_there_is_one_server_and_it_may_be_stopped_twice(folder: Path) -> None:
    async with daemon_session(folder, *blockdevs([null("a")])) as session:
        await exports.serve_unix(session, f"{folder}/nbd")
        with pytest.raises(QemuError, match="already"):
            await exports.serve_unix(session, f"{folder}/other")
        await exports.add(session, "a", "a", "a")
        for _ in range(2):
            await exports.stop_serving(session)
            assert await exports.ids(session) == frozenset()


# ---- jobs


async def test_a_mirror_is_ready_cancelled_and_dismissed(folder: Path) -> None:
    async with machine(folder, null("disk"), null("sink")) as session:
        await jobs.start_mirror(session, "move", "disk", "sink", 0, MIB)
        ready = await jobs.wait_status(session, "move", READY, 20)
        assert (ready.type, ready.status, ready.error) == ("mirror", "ready", None)
        assert ready.done == ready.total
        await jobs.cancel(session, "move")
        ended = await jobs.wait_status(session, "move", CONCLUDED, 20)
        assert ended.status == "concluded"
        # It stays until it is dismissed, so that whoever comes late can ask what became of it.
        assert list(await jobs.running(session)) == ["move"]
        await jobs.dismiss(session, "move")
        assert await jobs.running(session) == {}


async def test_a_job_that_has_ended_or_never_was_counts_as_cancelled(folder: Path) -> None:
    async with machine(folder, null("disk"), null("sink")) as session:
        await jobs.start_mirror(session, "move", "disk", "sink", 0, MIB)
        for _ in range(2):
            await jobs.cancel(session, "move")
            await jobs.wait_status(session, "move", CONCLUDED, 20)
        await jobs.dismiss(session, "move")
        await jobs.cancel(session, "move")


async def test_a_job_that_meets_an_error_stands_still_until_it_is_ended(folder: Path) -> None:
    async with machine(folder, failing(folder, "disk"), null("sink")) as session:
        assert not await jobs.has_stopped(session, "move")
        await jobs.start_mirror(session, "move", "disk", "sink", 0, MIB)
        await jobs.wait_status(session, "move", frozenset({"paused"}), 20)
        assert await jobs.has_stopped(session, "move")
        await jobs.cancel(session, "move")
        ended = await jobs.wait_status(session, "move", CONCLUDED, 20)
        assert ended.error is not None
        await jobs.dismiss(session, "move")
        assert await jobs.running(session) == {}


async def test_a_state_that_does_not_come_is_not_waited_for(folder: Path) -> None:
    async with machine(folder, null("disk"), null("sink")) as session:
        await jobs.start_mirror(session, "move", "disk", "sink", 0, MIB)
        await jobs.wait_status(session, "move", READY, 20)
        with pytest.raises(TimedOutError, match=r"the job move getting concluded did not happen within 0\.1 s"):
            await jobs.wait_status(session, "move", CONCLUDED, 0.1)


async def test_a_backing_is_forgotten_and_dropped(folder: Path) -> None:
    base = create(folder / "base", "raw", "1M")
    overlay = create(folder / "overlay", "qcow2", "1M", "-b", str(base), "-F", "raw")
    fill(overlay, "qcow2", "0xa1 0 512k")
    held = {"driver": "file", "node-name": "held", "filename": str(overlay)}
    top = {"driver": "qcow2", "node-name": "top", "file": held}
    async with machine(folder, {"driver": "copy-on-read", "node-name": "cor", "file": top}) as session:
        await blockdev.forget_backing(session, "cor", "top")
        assert await blockdev.has_backing(session, "top")
        await blockdev.reopen(session, {**top, "file": "held", "backing": None})
        assert not await blockdev.has_backing(session, "top")
    base.unlink()
    assert reads(overlay, "qcow2", "0xa1 0 512k")
