"""Sessions with real monitors: every wait has an end, and every way to end has an error of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from qemu_esd.errors import HostError, MonitorBusyError, QemuError, QemuGoneError, TimedOutError
from qemu_esd.hosts.local import LocalHost
from qemu_esd.hosts.ssh import open_target
from qemu_esd.qmp import session as module
from qemu_esd.qmp.session import Session, open_session
from tests.hosts.sshd import serving
from tests.support.qemu import option, qemu, storage_daemon

HERE = LocalHost()
BOTH = pytest.mark.parametrize("program", ["qemu", "daemon"])


@asynccontextmanager
async def running(program: str, folder: Path) -> AsyncIterator[Process]:
    """A QEMU, or a storage daemon, with a monitor on `folder`/qmp."""
    path = option(f"{folder}/qmp")
    if program == "qemu":
        start = qemu("-machine", "none", "-qmp", f"unix:{path},server=on,wait=off")
    else:
        chardev = ("--chardev", f"socket,id=qmp,path={path},server=on,wait=off")
        start = storage_daemon(*chardev, "--monitor", "chardev=qmp")
    async with start as process:
        yield process


@asynccontextmanager
async def opened(program: str, folder: Path) -> AsyncIterator[tuple[Session, Process]]:
    async with running(program, folder) as process, open_session(HERE, f"{folder}/qmp", "vm") as session:
        yield session, process


@BOTH
async def test_a_command_is_answered(program: str, folder: Path) -> None:
    async with opened(program, folder) as (session, _):
        assert (await session.execute("query-version"))["qemu"]["major"] >= 7
        assert await session.execute("query-named-block-nodes", flat=True) == []


@BOTH
async def test_a_command_that_is_refused_tells_why(program: str, folder: Path) -> None:
    async with opened(program, folder) as (session, _):
        with pytest.raises(QemuError) as raised:
            await session.execute("blockdev-del", node_name="no-such-node")
        assert (raised.value.command, raised.value.host) == ("blockdev-del", "local")
        assert "no-such-node" in raised.value.reason
        assert str(raised.value) == f"local: QEMU refused blockdev-del: {raised.value.reason}"
        assert await session.execute("query-jobs") == []


@BOTH
async def test_a_command_that_nobody_knows_is_refused(program: str, folder: Path) -> None:
    async with opened(program, folder) as (session, _):
        with pytest.raises(QemuError, match="no-such-command"):
            await session.execute("no-such-command")


async def test_underscores_stand_for_dashes_and_none_for_nothing(folder: Path) -> None:
    async with opened("daemon", folder) as (session, _):
        arguments: dict[str, Any] = {"driver": "null-co", "node-name": "null"}
        await session.execute_dict("blockdev-add", arguments)
        await session.execute("blockdev-del", node_name="null", no_such_argument=None)


async def test_many_commands_at_once_get_their_own_answers(folder: Path) -> None:
    async with opened("daemon", folder) as (session, _):
        names = [f"null{number}" for number in range(20)]
        for name in names:
            await session.execute_dict("blockdev-add", {"driver": "null-co", "node-name": name})
        work = [session.execute("blockdev-del", node_name=name) for name in (*names, "other")]
        done = await asyncio.gather(*work, return_exceptions=True)
        assert done[:-1] == [{}] * len(names)
        assert isinstance(done[-1], QemuError)


# ---- no answer


@BOTH
async def test_a_peer_that_does_not_answer_is_not_waited_for(
    program: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(program, folder) as (session, process):
        monkeypatch.setattr(module, "COMMAND_SECONDS", 0.2)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(TimedOutError, match=r"an answer of vm to query-jobs did not happen within 0\.2 s"):
            await session.execute("query-jobs")
        monkeypatch.setattr(module, "COMMAND_SECONDS", 30)
        process.send_signal(signal.SIGCONT)
        # The late answer is nobody's; it is not taken for that of the next command.
        assert "qemu" in await session.execute("query-version")


async def test_an_event_that_does_not_come_is_not_waited_for(folder: Path) -> None:
    async with opened("qemu", folder) as (session, _):
        with session.listening("STOP") as events:
            with pytest.raises(TimedOutError, match=r"the moon did not happen within 0\.1 s") as raised:
                await events.wait(lambda event: True, 0.1, "the moon")
        assert (raised.value.seconds, raised.value.host) == (0.1, "local")


# ---- the peer ends


@BOTH
async def test_whoever_waits_for_an_answer_is_told_that_the_peer_is_gone(program: str, folder: Path) -> None:
    async with opened(program, folder) as (session, process):
        process.send_signal(signal.SIGSTOP)
        asking = asyncio.ensure_future(session.execute("query-version"))
        await asyncio.sleep(0)
        process.kill()
        with pytest.raises(QemuGoneError, match="local: the monitor of vm went away"):
            await asking


@BOTH
async def test_whoever_waits_for_an_event_is_told_that_the_peer_is_gone(program: str, folder: Path) -> None:
    async with opened(program, folder) as (session, process):
        with session.listening("MIGRATION", "JOB_STATUS_CHANGE") as events:
            waiting = asyncio.ensure_future(events.wait(lambda event: True, 600, "an event"))
            await asyncio.sleep(0)
            process.kill()
            with pytest.raises(QemuGoneError):
                await waiting


@BOTH
async def test_whoever_asks_later_is_told_so_too(program: str, folder: Path) -> None:
    async with opened(program, folder) as (session, process):
        process.kill()
        await asyncio.wait_for(session.closed(), 20)
        for _ in range(2):
            with pytest.raises(QemuGoneError, match="local: the monitor of vm went away"):
                await session.execute("query-version")
        with session.listening("STOP") as events:
            with pytest.raises(QemuGoneError):
                await events.get()


@BOTH
async def test_to_quit_is_no_error_and_may_be_done_twice(program: str, folder: Path) -> None:
    async with opened(program, folder) as (session, process):
        await session.quit()
        assert await process.wait() == 0
        await session.closed()
        await session.quit()


async def test_the_last_event_is_not_lost_with_the_peer(folder: Path) -> None:
    async with opened("qemu", folder) as (session, _):
        with session.listening("SHUTDOWN") as events:
            await session.quit()
            assert (await events.get())["data"]["reason"] == "host-qmp-quit"
            with pytest.raises(QemuGoneError):
                await events.get()


# ---- events


async def test_events_are_heard_from_before_their_command_and_only_those_asked_for(folder: Path) -> None:
    async with opened("daemon", folder) as (session, _):
        for name in ("a", "b"):
            await session.execute_dict("blockdev-add", {"driver": "null-co", "node-name": name, "size": 65536})
        with session.listening("JOB_STATUS_CHANGE") as events:
            job: dict[str, Any] = {"job_id": "j", "device": "a", "target": "b", "sync": "full", "auto_dismiss": False}
            await session.execute("blockdev-mirror", **job)
            ready = await events.wait(lambda event: event["data"]["status"] == "ready", 20, "ready")
            assert (ready["event"], ready["data"]["id"]) == ("JOB_STATUS_CHANGE", "j")


async def test_two_listeners_hear_the_same(folder: Path) -> None:
    async with opened("qemu", folder) as (session, _):
        with session.listening("RESUME") as one, session.listening("RESUME", "STOP") as other:
            await session.execute("cont")
            await session.execute("stop")
            assert [(await events.get())["event"] for events in (one, other, other)] == ["RESUME", "RESUME", "STOP"]


async def test_what_happened_before_is_not_heard(folder: Path) -> None:
    async with opened("qemu", folder) as (session, _):
        await session.execute("cont")
        with session.listening("RESUME", "STOP") as events:
            await session.execute("stop")
            assert (await events.get())["event"] == "STOP"


# ---- opening


@BOTH
async def test_a_second_client_is_told_that_there_is_a_first(
    program: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(program, folder) as (session, _):
        monkeypatch.setattr(module, "GREETING_SECONDS", 0.3)
        with pytest.raises(MonitorBusyError, match=f"the QMP socket {folder}/qmp of vm is held by another") as raised:
            async with open_session(HERE, f"{folder}/qmp", "vm"):
                pass
        assert raised.value.exit_status == 3
        assert "second -qmp socket" in (raised.value.hint or "")
        assert "qemu" in await session.execute("query-version")


async def test_when_the_first_client_is_done_the_second_is_served(folder: Path) -> None:
    async with running("qemu", folder):
        for _ in range(3):
            async with open_session(HERE, f"{folder}/qmp", "vm") as session:
                assert "qemu" in await session.execute("query-version")


async def test_a_socket_on_which_nobody_listens_is_a_qemu_that_is_gone(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(f"{folder}/stale")
    for name in ("stale", "missing"):
        with pytest.raises(QemuGoneError, match=f"nobody answers on the QMP socket {folder}/{name} of vm"):
            async with open_session(HERE, f"{folder}/{name}", "vm"):
                pass


@pytest.mark.parametrize("words", [b"", b"hello\r\n", b'{"QMP": ', b'{"error": {}}\r\n', b"\xff\xfe\n"])
async def test_what_does_not_speak_qmp_is_no_qemu(folder: Path, words: bytes) -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        writer.close()

    async with await asyncio.start_unix_server(speak, folder / "other"):
        with pytest.raises(QemuGoneError, match="nobody answers"):
            async with open_session(HERE, f"{folder}/other", "vm"):
                pass


GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'


@pytest.mark.parametrize(
    "early",
    [
        b'{"event": "MIGRATION", "data": {"status": "cancelled"}}\r\n{"event": "STOP"}\r\n',
        GREETING,
        GREETING + b'{"event": "STOP"}\r\n',
    ],
    ids=["events", "greeting", "both"],
)
async def test_what_comes_before_the_answer_to_the_greeting_is_no_refusal(folder: Path, early: bytes) -> None:
    """The migration thread's events wait for nobody, and a storage daemon that just starts may greet twice."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        asked = json.loads(await reader.read(4096))
        writer.write(early)
        writer.write(json.dumps({"return": {}, "id": asked.get("id")}).encode() + b"\r\n")
        asked = json.loads(await reader.read(4096))
        writer.write(json.dumps({"return": asked["execute"], "id": asked["id"]}).encode() + b"\r\n")

    async with await asyncio.start_unix_server(speak, folder / "hasty"):
        async with open_session(HERE, f"{folder}/hasty", "vm") as session:
            assert await session.execute("query-status") == "query-status"


async def test_a_body_that_fails_closes_the_session(folder: Path) -> None:
    async with running("daemon", folder):
        with pytest.raises(ZeroDivisionError):
            async with open_session(HERE, f"{folder}/qmp", "vm"):
                raise ZeroDivisionError
        async with open_session(HERE, f"{folder}/qmp", "vm") as session:
            assert "qemu" in await session.execute("query-version")


# ---- a host behind ssh


async def test_a_connection_that_breaks_does_not_mean_that_the_qemu_is_gone(folder: Path, tmp_path: Path) -> None:
    """What lives in a QEMU counts as released when the QEMU is gone, so nobody may take one for the other."""
    with serving(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.setblocking(False)
        async with open_target("there", server.target(), sock) as host, running("qemu", folder) as process:
            async with open_session(host, f"{folder}/qmp", "vm") as session:
                assert "qemu" in await session.execute("query-version")
                await cut(host)
                with pytest.raises(HostError):
                    await session.execute("query-version")
                with session.listening("STOP") as events, pytest.raises(HostError):
                    await events.get()
            with pytest.raises(HostError):
                async with open_session(host, f"{folder}/qmp", "vm"):
                    pass
            assert process.returncode is None


async def cut(host: Any) -> None:
    """Kill the server's process of this connection."""
    with pytest.raises(HostError):
        await host.attempt(("sh", "-c", "kill -9 $PPID"))


async def test_a_qemu_behind_ssh_that_is_gone_is_told_as_one(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.setblocking(False)
        async with open_target("there", server.target(), sock) as host, running("qemu", folder) as process:
            async with open_session(host, f"{folder}/qmp", "vm") as session:
                os.kill(process.pid, signal.SIGKILL)
                with pytest.raises(QemuGoneError, match="there: the monitor of vm went away"):
                    await session.execute("query-version")
            with pytest.raises(QemuGoneError, match="nobody answers"):
                async with open_session(host, f"{folder}/qmp", "vm"):
                    pass
