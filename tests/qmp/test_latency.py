"""Latencies as a real QEMU counts them, and the limit of a job that it is told."""

from __future__ import annotations

from pathlib import Path

from qemu_esd.qmp import jobs, latency
from qemu_esd.qmp.session import Session
from tests.qmp.test_blockdev import CONCLUDED, MIB, QDEV, READY, machine, null
from tests.support.qemu import Node

DEVICES = (QDEV,)


async def counts(session: Session) -> bool:
    """Whether the device has histograms now."""
    (row,) = [row for row in await session.execute("query-blockstats") if row.get("qdev")]
    return "rd_latency_histogram" in row["stats"]


async def test_a_device_is_counted_until_it_is_let_be(folder: Path) -> None:
    async with machine(folder, null("disk")) as session:
        assert await latency.counted(session, DEVICES) == {}
        assert await latency.start(session, DEVICES) == DEVICES
        found = await latency.counted(session, DEVICES)
        assert set(found) == {*latency.BOUNDS, float("inf")}
        assert sum(found.values()) == 0
        # What one of us has left behind that was killed.
        assert await latency.start(session, DEVICES) == DEVICES
        await latency.stop(session, DEVICES)
        assert not await counts(session)
        await latency.stop(session, DEVICES)


async def test_what_somebody_else_counts_is_made_use_of_and_stays(folder: Path) -> None:
    async with machine(folder, null("disk")) as session:
        await session.execute("block-latency-histogram-set", id=QDEV, boundaries=[1000, 2000])
        assert await latency.start(session, DEVICES) == ()
        assert set(await latency.counted(session, DEVICES)) == {1000, 2000, float("inf")}
        await latency.stop(session, ())
        assert await counts(session)


async def test_a_job_is_told_another_limit(folder: Path) -> None:
    async with machine(folder, full(folder, "disk"), null("sink", size=64 * MIB)) as session:
        assert await jobs.speed(session, "move") is None
        await jobs.set_speed(session, "move", MIB)
        await jobs.start_mirror(session, "move", "disk", "sink", MIB, MIB)
        assert await jobs.speed(session, "move") == MIB
        await jobs.set_speed(session, "move", 2 * MIB)
        assert await jobs.speed(session, "move") == 2 * MIB
        await jobs.set_speed(session, "move", 0)
        assert await jobs.speed(session, "move") is None
        await jobs.wait_status(session, "move", READY, 20)
        await jobs.cancel(session, "move")
        await jobs.wait_status(session, "move", CONCLUDED, 20)
        await jobs.set_speed(session, "move", MIB)
        await jobs.dismiss(session, "move")


def full(folder: Path, name: str) -> Node:
    """A disk whose blocks all count as data."""
    path = folder / name
    path.write_bytes(b"\xa1" * (64 * MIB))
    return {"driver": "file", "node-name": name, "filename": str(path)}
