"""The usual way to move a guest with local disks: copy everything first, then move the guest.

What libvirt (--copy-storage-all), Proxmox and Nova do with QEMU 7.2: an NBD server in the target's QEMU, a
`blockdev-mirror` of each disk into it until it is ready, then the memory; at pre-switchover the mirrors are
completed, and the target runs. Same hosts, same TLS, same command line on the target but for the disk, no limit of
bandwidth either.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from qemu_esd.errors import EsdError
from qemu_esd.graph import tls
from qemu_esd.hosts import files, service
from qemu_esd.hosts.base import Host, run
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.hypervisors.cmdline.carried import DiskSwap, Target
from qemu_esd.hypervisors.cmdline.carry import carry
from qemu_esd.hypervisors.cmdline.reader import read
from qemu_esd.hypervisors.cmdline.sockets import Console, QmpSocket
from qemu_esd.model.host import guest_sockets
from qemu_esd.phases.switchover import UNLIMITED
from qemu_esd.qmp import blockdev, exports, jobs, machine, migrate
from qemu_esd.qmp.session import Events, Session, open_session
from tests.integration.support.drives import Drive
from tests.integration.support.guest import PATHS, Guest
from tests.integration.support.machine import SRV, Machine

# Free in a lab of our own.
NBD_PORT, RAM_PORT = 10809, 4444
KEYS = f"{PATHS.run}/precopy"
DISK, REMOTE, JOB, CREDENTIALS = "precopy-disk", "precopy-remote", "precopy", "precopy-tls"
# The caller bounds the whole.
FOREVER = 86400.0
ENDED = frozenset({"completed", "failed", "cancelled"})


async def move(guest: Guest, drive: Drive, to: Machine) -> Mapping[str, float]:
    """Returns when the guest runs on `to` and the QEMU that it left has ended. It has no figures of its own."""
    async with open_hosts() as hosts:
        source_host, target_host = await hosts.get(guest.machine.name), await hosts.get(to.name)
        control = guest_sockets(PATHS, guest.name).control
        await share_key(source_host, target_host)
        async with open_session(source_host, control, "the source") as source:
            argv = await target_argv(source, guest, drive, _disk_node(drive), "precopy")
            await _start(target_host, guest, drive, argv)
            async with open_session(target_host, control, "the target") as target:
                await _copy_disk(source, target, drive, to.address)
                await _move_memory(source, target, to.address)
    return {}


async def share_key(*hosts: Host) -> None:
    key = f"qemu:{secrets.token_hex(32)}\n".encode()
    for host in hosts:
        await files.make_folders(host, KEYS)
        await files.write(host, f"{KEYS}/keys.psk", key)


async def target_argv(
    source: Session, guest: Guest, drive: Drive, disk: Mapping[str, object], name: str
) -> tuple[str, ...]:
    """The guest's command line on the target, its disk on the node `disk`. `name` tells its sockets from others'."""
    sockets = guest_sockets(PATHS, guest.name)
    monitors = (QmpSocket(f"{name}-control", sockets.control), QmpSocket(f"{name}-user", sockets.user))
    console = Console(f"{name}-console", sockets.console, PATHS.console_log(guest.name, 1))
    credentials = ("-object", f"tls-creds-psk,id={CREDENTIALS},endpoint=server,dir={KEYS},priority={tls.PRIORITY}")
    wanted = Target(await machine.current_machine_type(source), monitors, console, extra=credentials)
    carried = carry(read(guest.qemu().argv), [DiskSwap(drive.id, (disk,), str(disk["node-name"]))], wanted)
    if carried.problems:
        raise EsdError(f"the guest cannot be moved: {carried.problems[0]}")
    return carried.argv


def _disk_path(drive: Drive) -> str:
    return f"{SRV}/{drive.id}.qcow2"


def _disk_node(drive: Drive) -> Mapping[str, object]:
    cache = {"direct": True}
    file = {"driver": "file", "filename": _disk_path(drive), "aio": "threads", "cache": cache}
    return {"driver": "qcow2", "node-name": DISK, "discard": "unmap", "cache": cache, "file": file}


async def _start(host: Host, guest: Guest, drive: Drive, argv: tuple[str, ...]) -> None:
    await run(host, ("qemu-img", "create", "-q", "-f", "qcow2", _disk_path(drive), str(drive.size)))
    await files.make_folders(host, PATHS.vm_state(guest.name), PATHS.vm_run(guest.name))
    unit = service.Service("precopy", PATHS.unit("precopy"), argv)
    await service.start_ready(host, unit, guest_sockets(PATHS, guest.name).control)


async def _copy_disk(source: Session, target: Session, drive: Drive, address: str) -> None:
    """Returns when the mirror has caught up with the guest."""
    at = {"host": address, "port": str(NBD_PORT)}
    await target.execute("nbd-server-start", addr={"type": "inet", "data": at}, tls_creds=CREDENTIALS)
    await exports.add_writable(target, DISK, DISK, DISK)
    await machine.add_object(source, "tls-creds-psk", CREDENTIALS, tls.credentials("client", KEYS))
    remote = {
        "driver": "nbd",
        "node-name": REMOTE,
        "server": {"type": "inet", **at},
        "export": DISK,
        "tls-creds": CREDENTIALS,
    }
    await blockdev.add(source, remote)
    await source.execute("blockdev-mirror", job_id=JOB, device=drive.id, target=REMOTE, sync="full", auto_dismiss=False)
    await _job(source, "ready")


async def _job(source: Session, wanted: str) -> None:
    job = await jobs.wait_status(source, JOB, frozenset({wanted, "concluded"}), FOREVER)
    if job.error or job.status != wanted:
        raise EsdError(f"the mirror of the disk failed: {job.error or job.status}")


async def _move_memory(source: Session, target: Session, address: str) -> None:
    await set_up(source, migrate.SOURCE_CAPABILITIES, address)
    await set_up(target, migrate.TARGET_CAPABILITIES, "")
    await migrate.listen(target, f"tcp:{address}:{RAM_PORT}")
    with source.listening("MIGRATION") as seen, target.listening("RESUME") as resumed:
        await migrate.start(source, f"tcp:{address}:{RAM_PORT}")
        await reach(seen, "pre-switchover")
        # Without force it completes: what the guest wrote last goes over.
        await source.execute("block-job-cancel", device=JOB)
        await _job(source, "concluded")
        await migrate.go_on(source)
        await reach(seen, "completed")
        # A writable export stands in the way of the activation.
        await exports.stop_serving(target)
        await machine.cont(target)
        await resumed.wait(lambda _: True, FOREVER, "the guest running on the target")
    await source.quit()
    await source.closed()


async def set_up(session: Session, capabilities: tuple[str, ...], tls_hostname: str) -> None:
    now = await migrate.parameters(session)
    await migrate.set_parameters(session, migrate.Parameters(CREDENTIALS, tls_hostname, UNLIMITED, now.downtime_limit))
    await migrate.set_capabilities(session, dict.fromkeys(capabilities, True))


async def reach(seen: Events, wanted: str) -> None:
    status = await migrate.wait_status(seen, frozenset({wanted, *ENDED}), FOREVER)
    if status != wanted:
        raise EsdError(f"the memory could not be moved: {status}")
