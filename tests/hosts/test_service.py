"""Units of the plain daemon: started, watched, started again, stopped with all that is theirs, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from qemu_esd.errors import EsdError
from qemu_esd.hosts import service
from qemu_esd.hosts.local import LocalHost
from qemu_esd.hosts.service import Service

pytestmark = pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="units are systemd's here")

HERE = LocalHost()
NAME = "test"
SECONDS = 20

# Calls the test on the socket argv[1], says its process id and its further words, and stays until it is killed.
CALL = """
import os, socket, sys
test = socket.socket(socket.AF_UNIX)
test.connect(sys.argv[1])
test.sendall("\\0".join([str(os.getpid()), *sys.argv[2:]]).encode(errors="surrogateescape") + b"\\0\\n")
test.recv(1)
"""
# Listens on argv[1] for as long as it lives.
LISTEN = """
import socket, sys, threading
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("listening", flush=True)
threading.Event().wait()
"""


@dataclass
class Call:
    """A program that runs now: its process id, and what it says."""

    pid: int
    words: list[str]
    reader: StreamReader
    writer: StreamWriter

    async def end(self) -> None:
        """Returns when the program has gone."""
        assert await asyncio.wait_for(self.reader.read(), SECONDS) == b""


@dataclass
class Unit:
    """A folder for one unit, and the calls of the program in it, in the order of its starts."""

    folder: Path
    calls: asyncio.Queue[Call] = field(default_factory=asyncio.Queue)

    def program(self, *words: str, restart: bool = False) -> Service:
        argv = (sys.executable, "-I", "-S", "-c", CALL, f"{self.folder.parent}/test.sock", *words)
        return Service(NAME, str(self.folder), argv, restart)

    def listener(self, *, restart: bool = False) -> Service:
        argv = (sys.executable, "-I", "-S", "-c", LISTEN, self.socket)
        return Service(NAME, str(self.folder), argv, restart)

    @property
    def socket(self) -> str:
        return f"{self.folder.parent}/unit.sock"

    async def called(self) -> Call:
        """The next start of the program."""
        return await asyncio.wait_for(self.calls.get(), SECONDS)

    async def state(self) -> str:
        return await service.state(HERE, str(self.folder), NAME)

    async def stop(self) -> None:
        await service.stop(HERE, str(self.folder), NAME)

    async def _answer(self, reader: StreamReader, writer: StreamWriter) -> None:
        said = os.fsdecode((await reader.readuntil(b"\0\n"))[:-2])
        pid, *words = said.split("\0")
        self.calls.put_nowait(Call(int(pid), words, reader, writer))


@pytest.fixture
async def unit(folder: Path) -> AsyncIterator[Unit]:
    """Whatever a test leaves of it is ended."""
    made = Unit(folder / "a unit's folder")
    server = await asyncio.start_unix_server(made._answer, folder / "test.sock")
    try:
        yield made
    finally:
        await made.stop()
        server.close()
        assert processes_of(made.folder) == []


def processes_of(folder: Path) -> list[str]:
    """The command lines of processes that work in a unit's folder, or name it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes().decode(errors="replace")
            if str(folder) in (process / "cwd").readlink().name or str(folder) in line.split("\0"):
                found.append(line)
    return found


async def until(condition: Callable[[], bool]) -> None:
    """For what has no event: a file that a shell writes."""

    def look() -> None:
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    await asyncio.to_thread(look)


async def test_a_unit_runs_until_it_is_stopped(unit: Unit) -> None:
    assert await unit.state() == "gone"
    await service.start(HERE, unit.program())
    call = await unit.called()
    assert await unit.state() == "running"
    await unit.stop()
    await call.end()
    assert await unit.state() == "gone"
    assert not unit.folder.exists()


async def test_to_stop_twice_or_what_never_was_is_fine(unit: Unit) -> None:
    await unit.stop()
    await service.start(HERE, unit.program())
    await unit.called()
    for _ in range(2):
        await unit.stop()
        assert await unit.state() == "gone"


async def test_a_unit_can_be_stopped_as_soon_as_it_has_been_started(unit: Unit) -> None:
    """Whoever supervises it is known by then, so that nothing is left behind."""
    for _ in range(4):
        await service.start(HERE, unit.program(restart=True))
        assert int((unit.folder / "supervisor").read_text()) > 1
        await unit.stop()
        assert processes_of(unit.folder) == []


async def test_what_it_executes_is_what_was_said(unit: Unit) -> None:
    words = ("", "two words", "it's", "$HOME", "`id`", "new\nline", "*", "-x", b"\xe9".decode(errors="surrogateescape"))
    await service.start(HERE, unit.program(*words))
    assert (await unit.called()).words == list(words)


async def test_it_outlives_whoever_started_it(unit: Unit) -> None:
    """It is in a session of its own, where no terminal's signals reach it, and no child of ours."""
    await service.start(HERE, unit.program())
    call = await unit.called()
    assert os.getsid(call.pid) not in (os.getsid(0), call.pid)
    parent = int(Path(f"/proc/{call.pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    assert parent == int((unit.folder / "supervisor").read_text())
    assert int(Path(f"/proc/{parent}/stat").read_text().rsplit(")", 1)[1].split()[1]) != os.getpid()


async def test_a_unit_that_ends_stays_ended(unit: Unit) -> None:
    await service.start(HERE, unit.program())
    call = await unit.called()
    os.kill(call.pid, signal.SIGKILL)
    await call.end()
    await until((unit.folder / "exit").exists)
    assert await unit.state() == "ended"
    assert (unit.folder / "exit").read_text() == "137\n"
    assert unit.calls.empty()


async def test_a_unit_is_started_again_after_a_kill_and_not_after_a_stop(unit: Unit) -> None:
    await service.start(HERE, unit.program("word", restart=True))
    first = await unit.called()
    os.kill(first.pid, signal.SIGKILL)
    second = await unit.called()
    assert (second.words, second.pid != first.pid) == (["word"], True)
    assert await unit.state() == "running"
    await unit.stop()
    await second.end()
    assert unit.calls.empty()


async def test_a_rewritten_unit_goes_on_and_is_another_one_after_a_restart(unit: Unit) -> None:
    await service.start(HERE, unit.program("old", restart=True))
    first = await unit.called()
    await service.rewrite(HERE, str(unit.folder), unit.program("new").argv)
    assert await unit.state() == "running"
    os.kill(first.pid, signal.SIGKILL)
    assert (await unit.called()).words == ["new"]


async def test_all_processes_of_a_unit_end_with_it(unit: Unit) -> None:
    program = unit.program()
    both = Service(NAME, str(unit.folder), ("sh", "-c", '"$@" & "$@" & wait', "sh", *program.argv))
    await service.start(HERE, both)
    calls = [await unit.called(), await unit.called()]
    await unit.stop()
    for call in calls:
        await call.end()


async def test_what_it_leaves_on_the_host_is_ours_alone(unit: Unit) -> None:
    await service.start_ready(HERE, unit.listener(), unit.socket)
    for path in (Path(unit.socket), unit.folder, *unit.folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


# ---- ready


async def test_it_is_ready_when_it_listens(unit: Unit) -> None:
    await service.start_ready(HERE, unit.listener(), unit.socket)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(unit.socket)


@pytest.mark.parametrize("restart", [False, True])
async def test_one_that_does_not_start_is_told_with_its_last_words(unit: Unit, restart: bool) -> None:
    argv = ("sh", "-c", "echo first; echo 'cannot find the disk' >&2; exit 3")
    with pytest.raises(EsdError) as raised:
        await service.start_ready(HERE, Service(NAME, str(unit.folder), argv, restart), unit.socket)
    assert str(raised.value) == "local: test did not start: first\ncannot find the disk"


async def test_one_that_ends_without_a_word_is_told_so(unit: Unit) -> None:
    with pytest.raises(EsdError, match="test did not start: it ended without a word"):
        await service.start_ready(HERE, Service(NAME, str(unit.folder), ("false",)), unit.socket)


async def test_one_that_never_listens_is_told_so(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "READY_SECONDS", 1)
    with pytest.raises(EsdError, match=f"test did not start: no socket {unit.socket} in time"):
        await service.start_ready(HERE, unit.program(), unit.socket)


@pytest.mark.parametrize("listens", [True, False])
async def test_the_socket_of_an_earlier_run_is_no_readiness(unit: Unit, listens: bool) -> None:
    """Nor one that is bound and does not listen yet."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(unit.socket)
        if listens:
            stale.listen()
            stale.close()
        with pytest.raises(EsdError, match="without a word"):
            await service.start_ready(HERE, Service(NAME, str(unit.folder), ("false",)), unit.socket)


async def test_last_words_are_one_line(unit: Unit) -> None:
    argv = ("sh", "-c", "echo one; echo two; echo three; exit 3")
    await service.start(HERE, Service(NAME, str(unit.folder), argv))
    await until((unit.folder / "exit").exists)
    assert await service.last_words(HERE, str(unit.folder)) == "two; three"


async def test_without_words_the_status_is_told(unit: Unit) -> None:
    await service.start(HERE, Service(NAME, str(unit.folder), ("sh", "-c", "exit 3")))
    await until((unit.folder / "exit").exists)
    assert await service.last_words(HERE, str(unit.folder)) == "it ended with status 3 and without a word"
    assert "status ?" in await service.last_words(HERE, "/nonexistent")


# ---- process ids


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody else, leader of its group, that got an id which a unit of ours once had."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        yield process
        process.kill()


async def test_an_id_that_somebody_else_has_now_is_not_ours(unit: Unit, stranger: subprocess.Popen[bytes]) -> None:
    """The files of a unit survive a reboot; its process ids do not."""
    unit.folder.mkdir()
    for name in ("supervisor", "pid"):
        (unit.folder / name).write_text(f"{stranger.pid}\n")
    assert await unit.state() == "ended"
    await unit.stop()
    assert stranger.poll() is None
    assert not unit.folder.exists()


@pytest.mark.parametrize("content", ["", "garbage\n", "999999999\n", "-1\n", "0\n"])
async def test_an_id_that_is_none_harms_nobody(unit: Unit, content: str) -> None:
    unit.folder.mkdir()
    for name in ("supervisor", "pid"):
        (unit.folder / name).write_text(content)
    assert await unit.state() == "ended"
    await unit.stop()
    assert await unit.state() == "gone"


async def test_a_program_that_works_elsewhere_is_ours(unit: Unit) -> None:
    """QEMU leaves its folder for the one that -chroot names."""
    program = unit.program()
    await service.start(HERE, Service(NAME, str(unit.folder), ("sh", "-c", 'cd / && exec "$@"', "sh", *program.argv)))
    call = await unit.called()
    assert await unit.state() == "running"
    await unit.stop()
    await call.end()


async def test_a_program_whose_supervisor_was_killed_is_still_ours(unit: Unit) -> None:
    await service.start(HERE, unit.program(restart=True))
    call = await unit.called()
    os.kill(int((unit.folder / "supervisor").read_text()), signal.SIGKILL)
    assert await unit.state() == "running"
    await unit.stop()
    await call.end()
