"""Release: hosts that the guest has left forget it."""

from __future__ import annotations

import shlex
from dataclasses import replace

from qemu_esd.errors import RefusedError
from qemu_esd.log import step
from qemu_esd.phases import aside, changes
from qemu_esd.phases.station import Station


@step
async def release(station: Station) -> Station:
    """Delete the images that former sources have put aside. Raises RefusedError while one is still needed."""
    record = station.record
    if record.upstream:
        raise RefusedError(
            f"{record.name} still reads from {record.upstream[0].host}",
            host=station.host.name,
            hint=f"qemu-esd settle {shlex.quote(record.name)}",
        )
    for behind in record.left_behind:
        host = await station.hosts.get(behind.host)
        await aside.forget(host, behind.migration)
    await changes.forget(station)
    return await station.rewrite(replace(record, left_behind=()))
