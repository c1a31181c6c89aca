"""Block jobs: start, watch by events, end."""

from __future__ import annotations

from dataclasses import dataclass

from qemu_esd.errors import QemuError
from qemu_esd.qmp.session import Session

# One write, and a flush of a disk that may be busy.
HEADER_SECONDS = 60.0


@dataclass(frozen=True)
class Job:
    """A job as `query-jobs` and `query-block-jobs` tell it. `done` of `total` in bytes; `error` once it failed."""

    id: str
    type: str
    status: str
    done: int
    total: int
    error: str | None


async def running(session: Session) -> dict[str, Job]:
    """All jobs by id."""
    rows = await session.execute("query-jobs")
    return {
        row["id"]: Job(
            row["id"],
            row["type"],
            row["status"],
            row["current-progress"],
            row["total-progress"],
            row.get("error"),
        )
        for row in rows
    }


async def start_mirror(session: Session, id: str, device: str, target: str, speed: int, in_flight: int) -> None:
    """Read everything of `device` towards the sink `target` (speed in bytes/s, 0 = no limit).

    `in_flight` is how many bytes it may have asked for at once, in requests of up to 1 MiB (a 16th, if that is more):
    so much passes before another limit holds.

    The job stays after its end (auto-dismiss off), so that its result can always be asked for.
    """
    await session.execute(
        "blockdev-mirror",
        job_id=id,
        device=device,
        target=target,
        sync="full",
        speed=speed,
        buf_size=in_flight,
        # Never write-blocking: cancelling such a job while the guest writes kills 7.2 (measured: signal 11 or 6).
        copy_mode="background",
        # A job that ends while QEMU stops the guest for the same error can leave its filter behind, for good (7.2).
        on_source_error="stop",
        on_target_error="report",
        auto_dismiss=False,
    )


async def write_backing(session: Session, id: str, node: str, backing: str, path: str) -> None:
    """Have the header of the image `node` name `path` as its backing, in the format of `backing`, the node below it.

    It is a stream from nowhere: it moves nothing. (`change-backing-file` would call the backing what the image is, and
    a raw one that its guest has made look like a qcow2 would be opened as one.)

    It dismisses itself: as long as such a job is concluded and kept, 7.2 dies of `query-named-block-nodes` (signal 11).
    A kill meanwhile: it comes to its end, and writing the same again is fine.
    """
    with session.listening("BLOCK_JOB_COMPLETED") as events:
        if id not in await running(session):
            await session.execute("block-stream", job_id=id, device=node, base_node=backing, backing_file=path)
        event = await events.wait(
            lambda event: event["data"]["device"] == id, HEADER_SECONDS, f"the end of the job {id}"
        )
    if error := event["data"].get("error"):
        raise QemuError("block-stream", error, host=session.host)


async def set_speed(session: Session, id: str, speed: int) -> None:
    """Another limit for a job (bytes/s, 0 = none). One that has ended, or never was, has none."""
    try:
        await session.execute("block-job-set-speed", device=id, speed=speed)
    except QemuError as error:
        if not _has_ended(error):
            raise


async def speed(session: Session, id: str) -> int | None:
    """The limit of a job (bytes/s); None: it has none, or there is no such job."""
    rows = await session.execute("query-block-jobs")
    return next((int(row["speed"]) or None for row in rows if row["device"] == id), None)


async def has_stopped(session: Session, id: str) -> bool:
    """Whether the job stands still at something that it could not read."""
    rows = await session.execute("query-block-jobs")
    return any(row["device"] == id and row["io-status"] != "ok" for row in rows)


async def cancel(session: Session, id: str) -> None:
    """Cancel without completing; a job that has just ended by itself counts as cancelled."""
    try:
        await session.execute("block-job-cancel", device=id, force=True)
    except QemuError as error:
        if not _has_ended(error):
            raise


def _has_ended(error: QemuError) -> bool:
    return "not found" in error.reason or "cannot accept" in error.reason


async def dismiss(session: Session, id: str) -> None:
    """Forget a job that is concluded."""
    await session.execute("job-dismiss", id=id)


async def wait_status(session: Session, id: str, wanted: frozenset[str], seconds: float) -> Job:
    """Wait until the job has one of the states `wanted` ("ready", "concluded"), then ask once and return it."""
    with session.listening("JOB_STATUS_CHANGE") as events:
        job = (await running(session)).get(id)
        if job is not None and job.status in wanted:
            return job
        await events.wait(
            lambda event: event["data"]["id"] == id and event["data"]["status"] in wanted,
            seconds,
            f"the job {id} getting {' or '.join(sorted(wanted))}",
        )
        return (await running(session))[id]
