"""Every bad input: one clear error that names the host and the mend, and nothing is touched anywhere.

One guest serves them all, because none of them may touch it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.errors import EsdError, HostError, RefusedError, UsageError
from qemu_esd.model.policy import Handler, check_write_policy, parse_handler
from qemu_esd.model.request import Request
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import PATHS, Guest
from tests.integration.support.inside import monitor, qemu_facts, tell
from tests.integration.support.machine import Machine

pytestmark = pytest.mark.lab

VDA, VDB = Drive("vda", 7, size=8 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1)


@asynccontextmanager
async def refusing(fleet: Fleet, guest: Guest, kind: type[EsdError], *words: str) -> AsyncIterator[None]:
    """What is done inside is refused with these words, and leaves no trace."""
    before, inside = fleet.snapshot(), await facts(guest)
    with pytest.raises(kind) as refused:
        yield
    told = f"{refused.value} | {refused.value.hint}"
    assert refused.value.exit_status == (2 if isinstance(refused.value, UsageError) else 3)
    assert refused.value.hint
    for word in words:
        assert re.search(word, told), told
    await fleet.unchanged(before)
    assert await facts(guest) == inside


async def facts(guest: Guest) -> dict[str, object]:
    return await qemu_facts(guest) if guest.machine.qemus(guest.name) else {}


async def migrate(vm: str = "vm1", target: str = "hostB", **words: Any) -> None:
    request = Request(vm, target, words.pop("handler", Handler.ON_DEMAND), **{"source": "hostA", **words})
    await api.migrate(request, print)


async def test_wrong_words_and_hosts(fleet: Fleet) -> None:
    guest = await fleet.idle(VDA, VDB)
    async with refusing(fleet, guest, RefusedError, "no guest nosuch", "--from"):
        await migrate("nosuch", source=None)
    async with refusing(fleet, guest, RefusedError, "hostA: .*nosuch", "vm list"):
        await migrate("nosuch")
    async with refusing(fleet, guest, RefusedError, "hostC: .*vm1"):
        await migrate(source="hostC")
    async with refusing(fleet, guest, RefusedError, "hostA: .*there already"):
        await migrate(target="hostA")
    async with refusing(fleet, guest, HostError, "hostZ", "ssh"):
        await migrate(target="hostZ")
    async with refusing(fleet, guest, HostError, "127.0.0.1", "ssh"):
        await migrate(target="root@127.0.0.1:1")
    async with refusing(fleet, guest, UsageError, "no policy 'ondemand'", "on-demand"):
        parse_handler("ondemand")
    async with refusing(fleet, guest, UsageError, "not there yet", "local"):
        check_write_policy("through")
    async with refusing(fleet, guest, UsageError, "no disk 'vdx'", "vd[ab]"):
        await migrate(disk_handlers={"vdx": Handler.MISS})
    for name in ("-oProxyCommand=touch /tmp/x", "host B", "", "$(id)", "a;b", "host\nB"):
        async with refusing(fleet, guest, UsageError, "not a host name"):
            await migrate(target=name)


async def test_the_target_is_not_fit(fleet: Fleet) -> None:
    guest = await fleet.idle(VDA, VDB)
    with hidden(fleet.b, "/usr/bin/qemu-system-x86_64"):
        async with refusing(fleet, guest, RefusedError, "hostB: .*no qemu-system-x86_64", "apt-get install"):
            await migrate()
    with hidden(fleet.a, "/usr/bin/qemu-storage-daemon"):
        async with refusing(fleet, guest, RefusedError, "hostA: .*no qemu-storage-daemon", "apt-get install"):
            await migrate()
    kind = machine_type(guest)
    with without(fleet.b, kind):
        async with refusing(fleet, guest, RefusedError, f"hostB: .*machine type {kind}", "upgrade"):
            await migrate()
    with without(fleet.b, "keys.psk"):
        async with refusing(fleet, guest, RefusedError, "hostB: .*TLS", "--transport ssh"):
            await migrate()
    with small(fleet.b, "/srv/small"):
        async with refusing(fleet, guest, RefusedError, "hostB: .*MiB", "--no-local-space"):
            await migrate(overlay_folder="/srv/small")
        proposal = await api.propose(
            Request("vm1", "hostB", Handler.REDIRECT, source="hostA", overlay_folder="/srv/small", local_space=False)
        )
        assert proposal.problems == ()
    async with refusing(fleet, guest, RefusedError, "hostB: .*no folder /srv/no ne", "mkdir -p '/srv/no ne'"):
        await migrate(overlay_folder="/srv/no ne")
    async with refusing(fleet, guest, RefusedError, "hostB: .*no folder /etc/passwd", "mkdir"):
        await migrate(overlay_folder="/etc/passwd")
    with existing(fleet.b, f"/var/lib/qemu-esd/disks/vm1.{guest.suid(VDB)}.g1.qcow2"):
        async with refusing(fleet, guest, RefusedError, "hostB: .*g1.qcow2 is there already", "move it away"):
            await migrate()
    async with listening(fleet.b, 49800):
        async with refusing(fleet, guest, RefusedError, "hostB: .*no port", "--ports"):
            await migrate(ports=range(49800, 49801))
    async with listening(fleet.a, 49800):
        async with refusing(fleet, guest, RefusedError, "hostA: .*no port", "--ports"):
            await migrate(ports=range(49800, 49801))
    async with namesake(fleet.b):
        async with refusing(fleet, guest, RefusedError, "hostB: .*vm1 runs there already"):
            await migrate()


async def test_the_guest_is_not_fit(fleet: Fleet) -> None:
    guest = await fleet.idle(VDA, VDB)
    async with copying(guest):
        async with refusing(fleet, guest, RefusedError, "hostA: .*job copy", "cancel"):
            await migrate()
    async with serving_nbd(guest):
        async with refusing(fleet, guest, RefusedError, "hostA: .*NBD server", "nbd-server-stop"):
            await migrate()
        assert Path(fleet.a.path("/run/mine.sock")).is_socket()
    async with outgoing(guest):
        async with refusing(fleet, guest, RefusedError, "hostA: .*migrat"):
            await migrate()
    async with held(guest):
        async with refusing(fleet, guest, RefusedError, "hostA: .*held by another client", "second -qmp"):
            await migrate()
    fleet.a.path(f"{VDA.path}").rename(fleet.a.path("/srv/elsewhere"))
    async with refusing(fleet, guest, RefusedError, "hostA: .*vda.raw is gone", "put it back"):
        await migrate()
    fleet.a.path("/srv/elsewhere").rename(fleet.a.path(VDA.path))
    await tell(guest, "stop")
    async with refusing(fleet, guest, RefusedError, "hostA: .*paused", "cont"):
        await migrate()
    await tell(guest, "cont")
    # After all that, it can still go.
    await guest.migrate(fleet.b, Handler.REDIRECT)
    async with refusing(fleet, guest, RefusedError, "hostA: .*moved to hostB", "--from hostB"):
        await migrate(target="hostC")
    await fleet.finish(guest)


async def test_a_guest_that_is_shut_off(fleet: Fleet) -> None:
    guest = await fleet.idle(VDA)
    await guest.power_off()
    async with refusing(fleet, guest, RefusedError, "hostA: vm1 is shut off", "cold"):
        await migrate()


async def test_a_corrupt_image(fleet: Fleet) -> None:
    """QEMU finds out while it runs, and marks the image."""
    VDB.make(fleet.a)
    spoil(fleet.a.real(VDB.path))
    guest = await fleet.idle(VDB, made=True)
    await tell(guest, "human-monitor-command", command_line='qemu-io -d vdb/virtio-backend "read 7M 64k"')
    async with refusing(fleet, guest, RefusedError, "hostA: .*vdb .*corrupt", "qemu-img check"):
        await migrate()


async def test_nvme_cannot_be_moved(fleet: Fleet) -> None:
    guest = await fleet.idle(Drive("nvme0", 7, size=MIB, words="bus=nvme"))
    async with refusing(fleet, guest, RefusedError, "nvme"):
        await migrate()


async def test_two_at_once(fleet: Fleet) -> None:
    """One of them moves the guest, the other is told that it is being moved."""
    guest = await fleet.idle(VDA)
    both = await asyncio.gather(migrate(), migrate(target="hostC"), return_exceptions=True)
    (error,) = [each for each in both if each is not None]
    assert isinstance(error, RefusedError), error
    assert len([machine for machine in fleet.machines if machine.qemus("vm1")]) == 1
    assert guest.machine.qemus("vm1") == ()


# ---- the ways in which a host or a guest is not fit


@contextmanager
def hidden(machine: Machine, program: str) -> Iterator[None]:
    """The host has no such program."""
    machine.run("mount", "--bind", "/dev/null", program)
    try:
        yield
    finally:
        machine.run("umount", program)


def machine_type(guest: Guest) -> str:
    argv = guest.qemu().argv
    return argv[argv.index("-machine") + 1]


@contextmanager
def without(machine: Machine, word: str) -> Iterator[None]:
    """A QEMU of another build: what it says has no `word`."""
    real, fake = "/usr/bin/qemu-system-x86_64", "/var/log/qemu-of-another-build"
    machine.path(fake).write_text(f'#!/bin/sh\n/var/log/real "$@" 2>&1 | grep -v -- "{word}"\n')
    machine.path(fake).chmod(0o755)
    machine.path("/var/log/real").write_bytes(b"")
    machine.run("mount", "--bind", real, "/var/log/real")
    machine.run("mount", "--bind", fake, real)
    try:
        yield
    finally:
        machine.run("umount", real)
        machine.run("umount", "/var/log/real")
        machine.path("/var/log/real").unlink()
        machine.path(fake).unlink()


@contextmanager
def small(machine: Machine, folder: str) -> Iterator[None]:
    machine.run("mkdir", folder)
    machine.run("mount", "-t", "tmpfs", "-o", "size=8m", "none", folder)
    try:
        yield
    finally:
        machine.run("umount", folder)


@contextmanager
def existing(machine: Machine, path: str) -> Iterator[None]:
    machine.path(path).parent.mkdir(exist_ok=True)
    machine.path(path).write_text("somebody else's")
    yield
    assert machine.path(path).read_text() == "somebody else's"
    machine.path(path).unlink()


@asynccontextmanager
async def listening(machine: Machine, port: int) -> AsyncIterator[None]:
    script = f"import socket, time; s = socket.create_server(('', {port})); print('on', flush=True); time.sleep(600)"
    async with running(machine, "python3", "-c", script) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"on\n"
        yield


@asynccontextmanager
async def namesake(machine: Machine) -> AsyncIterator[None]:
    """Another guest of that name, started by somebody else."""
    words = ("-nodefaults", "-display", "none", "-machine", "none", "-name", "vm1", "-qmp", "stdio")
    async with running(machine, "qemu-system-x86_64", *words) as process:
        assert process.stdout is not None
        assert b"QMP" in await process.stdout.readline()
        yield


@asynccontextmanager
async def running(machine: Machine, *argv: str) -> AsyncIterator[asyncio.subprocess.Process]:
    assert machine.lab.init is not None
    enter = ("nsenter", f"--target={machine.lab.init.pid}", "--all", "--wd=/", "--", *argv)
    process = await asyncio.create_subprocess_exec(
        *enter, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        machine.sweep_processes(argv[-1])
        await process.wait()


@asynccontextmanager
async def copying(guest: Guest) -> AsyncIterator[None]:
    """A block job of the user's."""
    await tell(guest, "blockdev-add", driver="null-co", node_name="nowhere", size=VDA.size)
    words = {"job-id": "copy", "device": "vda", "target": "nowhere", "sync": "full"}
    async with monitor(guest) as qemu:
        with qemu.listener("BLOCK_JOB_READY") as ready:
            await qemu.execute("blockdev-mirror", words)
            await ready.get()
    yield
    async with monitor(guest) as qemu:
        with qemu.listener("BLOCK_JOB_CANCELLED") as cancelled:
            await qemu.execute("block-job-cancel", {"device": "copy", "force": True})
            await cancelled.get()
        await qemu.execute("blockdev-del", {"node-name": "nowhere"})


@asynccontextmanager
async def serving_nbd(guest: Guest) -> AsyncIterator[None]:
    await tell(guest, "nbd-server-start", addr={"type": "unix", "data": {"path": "/run/mine.sock"}})
    await tell(guest, "block-export-add", type="nbd", id="mine", node_name="vda", name="mine")
    yield
    assert [each["id"] for each in await tell(guest, "query-block-exports")] == ["mine"]
    await tell(guest, "nbd-server-stop")


@asynccontextmanager
async def outgoing(guest: Guest) -> AsyncIterator[None]:
    """A migration by somebody else, that gets no further."""
    await tell(guest, "migrate", uri="exec:exec sleep 600")
    await running_there(guest.machine, "sleep", "600")
    yield
    await tell(guest, "migrate_cancel")
    guest.machine.sweep_processes("sleep 600")
    while (await tell(guest, "query-migrate"))["status"] not in ("cancelled", "failed"):
        await asyncio.sleep(0.05)


async def running_there(machine: Machine, *argv: str) -> None:
    """QEMU answers before the shell that it has started has become what it was told to be."""
    while not any(process.argv == argv for process in machine.processes()):
        await asyncio.sleep(0.05)


@asynccontextmanager
async def held(guest: Guest) -> AsyncIterator[None]:
    control = f"{PATHS.vm_run(guest.name)}/control.sock"
    session: AbstractAsyncContextManager[Any] = monitor(guest, control)
    async with session:
        yield


def spoil(image: Path) -> None:
    """Let the entry of a cluster point between two clusters."""
    with image.open("r+b") as file:
        header = file.read(64)
        file.seek(int.from_bytes(header[40:48]))
        table = int.from_bytes(file.read(8)) & ((1 << 56) - 1)
        entry = table + 8 * (7 * MIB >> 16)
        file.seek(entry)
        value = int.from_bytes(file.read(8))
        file.seek(entry)
        file.write((value + 0x1200).to_bytes(8))
