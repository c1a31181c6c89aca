"""What others on the network, on the hosts and in the guest can do to a migration: nothing, or end it cleanly."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from images.pattern import MIB
from qemu_esd.errors import RolledBackError
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import State
from qemu_esd.qmp import migrate
from qemu_esd.qmp.session import Session
from tests.faults import report
from tests.faults.rows import LOAD, VDA, VDB
from tests.integration.support import content
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.inside import monitor, qemu_facts
from tests.integration.support.machine import RUN, STATE, Machine
from tests.integration.test_rollback import places
from tests.lab.tools import inside

pytestmark = pytest.mark.lab

ALL = pytest.mark.skipif(os.environ.get("ESD_FAULTS") != "all", reason="takes minutes; ESD_FAULTS=all")
PORT = 49800
CONNECTIONS = 100
GARBAGE = (b"", b"\x00" * 64, b"QEVM" + os.urandom(4096), b"NBDMAGIC" * 99, b"\x16\x03\x01\xff\xff" + b"A" * 70_000)


# ---- over the network


class Flood(threading.Thread):
    """Somebody on a host who holds as many connections to some ports as he gets, and says garbage on every other."""

    def __init__(self, machine: Machine, *addresses: str) -> None:
        super().__init__()
        self._machine = machine
        self._held: dict[str, list[socket.socket]] = {address: [] for address in addresses}
        self._over = threading.Event()
        self.made = dict.fromkeys(addresses, 0)

    def run(self) -> None:
        while not self._over.wait(0.05):
            for address, held in self._held.items():
                held[:] = [each for each in held if not _ended(each)]
                while len(held) < CONNECTIONS and (fresh := self._connect(address)):
                    held.append(fresh)

    def _connect(self, address: str) -> socket.socket | None:
        try:
            fresh = inside(self._machine.lab, lambda: socket.create_connection((address, PORT), timeout=0.5))
        except OSError:
            return None
        self.made[address] += 1
        with suppress(OSError):
            fresh.sendall(GARBAGE[self.made[address] % len(GARBAGE)])
        fresh.setblocking(False)
        return fresh

    def end(self) -> None:
        self._over.set()
        self.join()
        for held in self._held.values():
            for each in held:
                each.close()


def _ended(connection: socket.socket) -> bool:
    try:
        while data := connection.recv(4096):
            del data
    except BlockingIOError:
        return False
    except OSError:
        pass
    connection.close()
    return True


@contextmanager
def flooded(machine: Machine, *addresses: str) -> Iterator[Flood]:
    flood = Flood(machine, *addresses)
    flood.start()
    try:
        yield flood
    finally:
        flood.end()


@ALL
async def test_a_flood_of_connections(fleet: Fleet) -> None:
    """A hundred to the path handler, from before it is there until the end: the target gets its place among them."""
    guest = await fleet.boot(VDA, VDB, load=LOAD)
    with flooded(fleet.c, fleet.a.address) as flood:
        told = await guest.migrate(fleet.b, Handler.BACKGROUND)
    print(flood.made)
    assert min(flood.made.values()) > 0
    assert told.state == State.SETTLED
    await guest.is_well()
    await guest.pause()
    await guest.recheck()
    report.note(report.Line("100 connections to the path handler", "all", "done", "nothing", "hostB"))
    await fleet.finish(guest)


@ALL
async def test_garbage_on_the_port_of_memory(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said there before the source comes, by somebody without the key."""
    guest = await fleet.boot(VDA, load=LOAD)

    def say_garbage() -> None:
        for words in GARBAGE:
            with inside(fleet.c.lab, lambda: socket.create_connection((fleet.b.address, PORT), timeout=5)) as one:
                one.sendall(words)

    called = before_the_stream(monkeypatch, say_garbage)
    told = await guest.migrate(fleet.b, Handler.BACKGROUND)
    assert called
    assert told.state == State.SETTLED
    await guest.is_well()
    report.note(report.Line("garbage on the port of memory", "memory moves", "done", "nothing", "hostB"))
    await fleet.finish(guest)


def before_the_stream(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> list[str]:
    """Do this when the target listens for memory and the source has not come yet; where the source is sent is told."""
    start, called = migrate.start, list[str]()

    async def act_first(session: Session, uri: str) -> None:
        act()
        called.append(uri)
        await start(session, uri)

    monkeypatch.setattr(migrate, "start", act_first)
    return called


@ALL
async def test_somebody_is_first_at_the_port_of_memory(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says nothing: QEMU waits for his handshake, deaf for all else. It is noticed, and the guest stays."""
    guest = await fleet.boot(VDA, load=LOAD)
    before, inner, said = places(fleet), await qemu_facts(guest), list[socket.socket]()

    def connect() -> None:
        said.append(inside(fleet.c.lab, lambda: socket.create_connection((fleet.b.address, PORT), timeout=5)))

    before_the_stream(monkeypatch, connect)
    with pytest.raises(RolledBackError) as error:
        await guest.migrate(fleet.b, Handler.BACKGROUND)
    assert (error.value.exit_status, bool(error.value.hint)) == (1, True)
    await guest.is_well()
    assert (places(fleet), await qemu_facts(guest)) == (before, inner)
    said[0].close()
    monkeypatch.undo()
    report.note(
        report.Line("a stranger waits at the port of memory", "memory moves", "RolledBackError (1)", "nothing", "hostA")
    )
    await fleet.finish(guest, settle=False)


# ---- at a monitor

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n'
)
SPEAKERS: dict[str, tuple[bytes, bool]] = {
    "garbage": (os.urandom(4096) + b"\n", True),
    "nothing, and leaves": (b"", False),
    "a greeting, and leaves": (GREETING, False),
    "a line without end": (GREETING + b"x" * (64 * MIB), True),
}


@pytest.mark.parametrize("speaker", [pytest.param(each, marks=[] if each == "garbage" else ALL) for each in SPEAKERS])
async def test_a_monitor_that_is_no_qemus(fleet: Fleet, speaker: str) -> None:
    """Somebody else listens on the socket that the command line of a guest names."""
    VDA.make(fleet.a)
    disk = ("-drive", f"file={VDA.path},format=raw,if=virtio", "-qmp", "unix:/tmp/theirs.qmp,server=on,wait=off")
    fleet.a.run("qemu-system-x86_64", "-daemonize", "-display", "none", "-m", "64", "-name", "theirs", *disk)
    words, stays = SPEAKERS[speaker]

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(words)
            await writer.drain()
            while stays and await reader.read(4096):
                pass
        writer.close()

    path = fleet.a.path("/tmp/theirs.qmp")
    path.unlink()
    async with await asyncio.start_unix_server(speak, path):
        before = fleet.snapshot()
        told = await say("migrate", "theirs", "hostB", "--from", "hostA", "--policy", "redirect")
        await fleet.unchanged(before)
    assert told.status in (1, 3)
    assert told.err.startswith("error: hostA: ")
    assert ("bug" in told.err, "Traceback" in told.err) == (False, False), told
    report.note(report.Line(f"a monitor that says {speaker}", "planned", f"({told.status})", "nothing", "hostA"))


# ---- from the guest


async def test_a_guest_that_writes_a_header_into_its_raw_disk(fleet: Fleet, tmp_path: Path) -> None:
    """It names a file of the host as its backing, on the first host and on the second: it stays bytes, everywhere."""
    drive = Drive("vda", 7, size=4 * MIB)
    guest = await fleet.idle(drive)
    for target in (fleet.b, fleet.c):
        header = qcow2_header(f"/etc/{'passwd' if target == fleet.b else 'hostname'}")
        guest.machine.path("/tmp/header").write_bytes(header)
        async with monitor(guest) as qemu:
            rows: Any = await qemu.execute("query-block")
            (device,) = [row["qdev"] for row in rows if "inserted" in row]
            line = f'qemu-io -d {device} "write -s /tmp/header 0 {len(header)}"'
            await qemu.execute("human-monitor-command", {"command-line": line})
        guest.machine.remove("/tmp/header")
        told = await guest.migrate(target, Handler.BACKGROUND)
        assert [disk.virtual_bytes for disk in told.disks] == [drive.size]
        opened = {name for machine in fleet.machines for name in open_files(machine)}
        assert not {name for name in opened if name.startswith("/etc/")}, opened
        flat = content.flatten(content.image(guest.member(drive), "qcow2"), tmp_path / target.name)
        assert flat.read_bytes()[: len(header)] == header
        assert flat.stat().st_size == drive.size
    report.note(report.Line("a qcow2 header in a raw disk", "two migrations", "done", "nothing", "hostC"))
    await fleet.finish(guest)


def open_files(machine: Machine) -> set[str]:
    """What QEMUs and path handlers there have open."""
    pids = [process.pid for process in (*machine.qemus("vm1"), *machine.path_handlers())]
    found = set[str]()
    for link in (link for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir()):
        with suppress(FileNotFoundError):
            found.add(str(link.readlink()))
    return found


def qcow2_header(backing: str) -> bytes:
    """Of version 2, with a backing file, padded to a sector."""
    name = backing.encode()
    words = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 72, len(name), 16, 4 * MIB, 0, 1, 1 << 17, 1 << 16, 1, 0, 0)
    assert len(words) == 72
    return (words + name).ljust(512, b"\0")


# ---- on the hosts


async def test_another_user_of_a_host_reads_nothing(fleet: Fleet) -> None:
    """Neither images, keys and records, nor through sockets; on both hosts, while a guest reads from the source."""
    guest = await fleet.idle(Drive("vda", 7, size=4 * MIB))
    await guest.migrate(fleet.b, Handler.ON_DEMAND)
    for machine in (fleet.a, fleet.b):
        words = ("find", STATE, RUN, "(", "-type", "f", "-readable", ")", "-o", "(", "-type", "s", "-writable", ")")
        assert machine.run(*words).stdout.count("\n") > 3
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
        assert machine.run(*nobody, *words, check=False).stdout == ""
    report.note(report.Line("another user reads what is ours", "handed over", "-", "nothing", "hostB"))
    await fleet.finish(guest)
