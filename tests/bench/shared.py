"""The floor: the same guest on storage that both hosts really share, so that nothing but memory and CPU has to move.

Both QEMUs open the same file (the lab's hosts are one kernel, and see its locks). Same memory stream, same TLS, same
parameters, same command line on the target but for the disk, which stays what it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from qemu_esd.graph import tls
from qemu_esd.hosts import files, service
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.model.host import guest_sockets
from qemu_esd.qmp import machine, migrate
from qemu_esd.qmp.session import Session, open_session
from tests.bench.precopy import CREDENTIALS, FOREVER, KEYS, RAM_PORT, reach, set_up, share_key, target_argv
from tests.integration.support.drives import Drive
from tests.integration.support.guest import PATHS, Guest
from tests.integration.support.machine import Machine

DISK = "shared-disk"


async def move(guest: Guest, drive: Drive, to: Machine) -> Mapping[str, float]:
    """As those who manage QEMU do it: stopped first, then told to go on, then to run.

    Returns when the guest runs on `to` and the QEMU that it left has ended. It has no figures of its own.
    """
    # Two names of one file: what a shared file system gives.
    os.link(guest.machine.real(drive.path), to.real(drive.path))
    async with open_hosts() as hosts:
        source_host, target_host = await hosts.get(guest.machine.name), await hosts.get(to.name)
        control = guest_sockets(PATHS, guest.name).control
        await share_key(source_host, target_host)
        async with open_session(source_host, control, "the source") as source:
            argv = await target_argv(source, guest, drive, _disk_node(drive), "shared")
            await files.make_folders(target_host, PATHS.vm_state(guest.name), PATHS.vm_run(guest.name))
            unit = service.Service("shared", PATHS.unit("shared"), argv)
            await service.start_ready(target_host, unit, control)
            async with open_session(target_host, control, "the target") as target:
                await _move_memory(source, target, to.address)
    return {}


def _disk_node(drive: Drive) -> Mapping[str, object]:
    cache = {"direct": True}
    file = {"driver": "file", "filename": drive.path, "aio": "threads", "cache": cache}
    return {"driver": "raw", "node-name": DISK, "discard": "unmap", "cache": cache, "file": file}


async def _move_memory(source: Session, target: Session, address: str) -> None:
    await machine.add_object(source, "tls-creds-psk", CREDENTIALS, tls.credentials("client", KEYS))
    await set_up(source, migrate.SOURCE_CAPABILITIES, address)
    await set_up(target, migrate.TARGET_CAPABILITIES, "")
    await migrate.listen(target, f"tcp:{address}:{RAM_PORT}")
    with source.listening("MIGRATION") as seen, target.listening("RESUME") as resumed:
        await migrate.start(source, f"tcp:{address}:{RAM_PORT}")
        await reach(seen, "pre-switchover")
        await migrate.go_on(source)
        await reach(seen, "completed")
        await machine.cont(target)
        await resumed.wait(lambda _: True, FOREVER, "the guest running on the target")
    await source.quit()
    await source.closed()
