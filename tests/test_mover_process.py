"""The process that goes on with a background move: real processes, found, ended, taken over from."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from qemu_esd import mover_process
from qemu_esd.errors import RefusedError
from qemu_esd.journal import store
from qemu_esd.mover_process import Mover
from tests.support.samples import plan

# Stands for a settle that goes on: ends at SIGTERM, once it is let. It inherits a mask that keeps the signal waiting.
PATIENT = "import signal, sys; open(sys.argv[1], 'rb', 0).read(1); signal.sigwait([signal.SIGTERM])"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A controller of its own; what was started in it is ended."""
    monkeypatch.setenv("QEMU_ESD_STATE", str(tmp_path))
    yield tmp_path
    for file in (tmp_path / "movers").glob("*.json"):
        mover = Mover(**json.loads(file.read_text()))
        if mover.pid != os.getpid():
            os.kill(mover.pid, signal.SIGKILL)


@pytest.fixture
def leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Movers that wait instead of moving. They end when they are told to, and after this call."""
    fifo = tmp_path / "leave"
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDWR)

    def argv(vm: str, release: bool) -> list[str]:
        return [sys.executable, "-c", PATIENT, str(fifo), vm, str(release)]

    monkeypatch.setattr(mover_process, "_argv", argv)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    yield lambda: _write(held)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.close(held)


def _write(pipe: int) -> None:
    """A byte for each mover of a test."""
    os.write(pipe, b"....")


async def _gone(pid: int) -> None:
    """Wait until a child of ours has ended, and take its status."""
    async with asyncio.timeout(30):
        await asyncio.to_thread(os.waitpid, pid, 0)


async def test_it_is_a_qemu_esd_of_its_own(home: Path) -> None:
    mover = mover_process.start("no such vm", "0badcafe")
    assert os.getsid(mover.pid) == mover.pid
    await _gone(mover.pid)
    assert mover.log == home / "movers/0badcafe.log"
    assert mover.log.read_text().startswith("error: there is no guest no such vm\n")
    assert mover_process.find("no such vm") is None
    assert not list((home / "movers").glob("*.json"))


async def test_one_per_guest(leave: Callable[[], None]) -> None:
    mover = mover_process.start("vm", "0badcafe", release=True)
    assert mover_process.find("vm") == mover == mover_process.start("vm", "another")
    assert mover_process.find("other") is None
    leave()
    assert await mover_process.end("vm") == mover
    assert mover_process.find("vm") is None
    assert await mover_process.end("vm") is None


async def test_end_waits_for_the_end(leave: Callable[[], None]) -> None:
    mover_process.start("vm", "0badcafe")
    ending = asyncio.ensure_future(mover_process.end("vm"))
    await asyncio.wait({ending}, timeout=0.3)
    assert not ending.done()
    leave()
    await asyncio.wait_for(ending, 30)


@pytest.mark.parametrize("began", [None, 1, mover_process._began(os.getpid())], ids=["untold", "another", "ours"])
async def test_somebody_elses_process_id_is_left_alone(home: Path, began: int | None) -> None:
    file = home / "movers" / "0badcafe.json"
    file.parent.mkdir()
    file.write_text(json.dumps(asdict(Mover("vm", "0badcafe", False, os.getpid(), began))))
    assert await mover_process.end("vm") is None
    assert not file.exists()


async def test_nor_is_a_later_process_that_has_its_number_and_its_words(home: Path, leave: Callable[[], None]) -> None:
    mover = mover_process.start("vm", "0badcafe")
    assert mover.began is not None
    file = home / "movers" / "0badcafe.json"
    file.write_text(json.dumps(asdict(replace(mover, began=mover.began - 1))))
    assert mover_process.find("vm") is None
    file.write_text(json.dumps(asdict(mover)))
    assert mover_process.find("vm") == mover


async def test_taken_over_until_we_fail(leave: Callable[[], None]) -> None:
    first = mover_process.start("vm", "0badcafe", release=True)
    leave()
    async with mover_process.taken_over("vm") as mover:
        assert mover == first
        assert mover_process.find("vm") is None
    assert mover_process.find("vm") is None

    mover_process.restart(first)
    with pytest.raises(ZeroDivisionError):
        async with mover_process.taken_over("vm"):
            assert mover_process.find("vm") is None
            raise ZeroDivisionError
    again = mover_process.find("vm")
    assert again is not None
    assert (again.migration, again.release) == ("0badcafe", True)
    await mover_process.end("vm")


async def test_cancelled_while_it_ends_it_starts_again(leave: Callable[[], None]) -> None:
    first = mover_process.start("vm", "0badcafe")

    async def command() -> None:
        async with mover_process.taken_over("vm"):
            raise AssertionError("it has not ended yet")

    running = asyncio.ensure_future(command())
    await asyncio.wait({running}, timeout=0.3)
    running.cancel()
    await asyncio.wait({running}, timeout=0.1)
    leave()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 30)
    again = mover_process.find("vm")
    assert again is not None
    assert again.pid != first.pid
    await mover_process.end("vm")


async def test_refused_while_another_command_works_on_the_guest(leave: Callable[[], None]) -> None:
    with store.begin(plan(id="0badcafe", vm="vm")):
        with pytest.raises(RefusedError, match="another qemu-esd works on vm"):
            async with mover_process.taken_over("vm"):
                raise AssertionError("it was let in")
        async with mover_process.taken_over("other"):
            pass
    async with mover_process.taken_over("vm"):
        pass


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"vm": 1}', "\0\0"])
def test_a_file_that_cannot_be_read_is_nobodys(home: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one guest's move; commands for the others must not fail by it."""
    (home / "movers").mkdir()
    file = home / "movers" / "11111111.json"
    file.write_text(text)
    assert mover_process.find("vm") is None
    assert file.exists()
    file.unlink()
    assert "11111111.json" in "".join(capsys.readouterr())
