"""What virtio devices have taken from the guest and not answered yet."""

from __future__ import annotations

from qemu_esd.qmp.session import Session

# Devices whose queues hold requests for disks.
DISK_DEVICES = ("virtio-blk", "virtio-scsi")
LIST, QUEUE, DEVICE = "x-query-virtio", "x-query-virtio-queue-status", "x-query-virtio-status"


async def requests_in_flight(session: Session) -> int | None:
    """How many requests of the guest's virtio disks are under way; of a guest that an error stopped, those too that
    wait for it to go on.

    None where QEMU does not tell: it has no virtio disk, or not these commands, which it calls unstable.
    """
    known = {row["name"] for row in await session.execute("query-commands")}
    if not {LIST, QUEUE, DEVICE} <= known:
        return None
    paths = [row["path"] for row in await session.execute(LIST) if row["name"] in DISK_DEVICES]
    counts = [await _of_device(session, path) for path in paths]
    return sum(counts) if counts else None


async def _of_device(session: Session, path: str) -> int:
    queues = (await session.execute(DEVICE, path=path))["num-vqs"]
    told = [await session.execute(QUEUE, path=path, queue=queue) for queue in range(queues)]
    return sum(queue["inuse"] for queue in told)
