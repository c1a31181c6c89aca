"""A process of ours that goes on with a background move when its terminal is gone, and how to take over from it.

In `<home>/movers`, `<migration>.json` says who it is and `<migration>.log` what it said. It holds the guest's
control monitor, so whoever wants to change the guest ends it first. QEMU's own job goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from qemu_esd.errors import RefusedError, TimedOutError
from qemu_esd.journal import shelf, store
from qemu_esd.journal.lines import JournalError
from qemu_esd.journal.store import room
from qemu_esd.log import logger

END_SECONDS = 60.0


@dataclass(frozen=True)
class Mover:
    """A process that settles what the policy of `vm` moves; with `release` the source then forgets the guest.

    `began` is when it was started, in clock ticks since the machine was: a process id alone is given away again.
    """

    vm: str
    migration: str
    release: bool
    pid: int
    began: int | None

    @property
    def log(self) -> Path:
        return _folder() / f"{self.migration}.log"


def _folder() -> Path:
    return room("movers").absolute()


def _argv(vm: str, release: bool) -> list[str]:
    # -P: what lies in the user's present folder is not imported.
    words = [sys.executable, "-P", "-m", "qemu_esd", "settle", "--background-only"]
    return [*words, *(["--release"] if release else []), "--", vm]


def start(vm: str, migration: str, *, release: bool = False) -> Mover:
    """Start the mover of a guest, in a session of its own; one that runs already is left alone."""
    running = find(vm)
    if running is not None:
        return running
    log = str(_folder() / f"{migration}.log")
    files = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawn(sys.executable, _argv(vm, release), os.environ, file_actions=files, setsid=True)
    mover = Mover(vm, migration, release, pid, _began(pid))
    # A kill before this line: the mover does its work unknown, and others are told that the monitor is busy.
    try:
        _write(mover)
    except JournalError:
        # Unknown to all others it would stand in their way.
        os.kill(pid, signal.SIGTERM)
        raise
    return mover


def _write(mover: Mover) -> None:
    store.write_file(_file(mover.migration), json.dumps(asdict(mover)))


def _file(migration: str) -> Path:
    return _folder() / f"{migration}.json"


def find(vm: str) -> Mover | None:
    """The mover of a guest, if one runs."""
    return next((mover for mover in _running() if mover.vm == vm), None)


def _running() -> Iterator[Mover]:
    for path in sorted(_folder().glob("*.json")):
        mover = _read(path)
        if mover is not None and _is_alive(mover):
            yield mover
        elif mover is not None:
            path.unlink(missing_ok=True)


def _read(path: Path) -> Mover | None:
    """None for a file that cannot be read: whoever wants that guest's monitor is told that it is busy."""
    try:
        return Mover(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        logger.warning("a file of a background move cannot be read, and may be removed", file=str(path), why=str(error))
        return None


def _is_alive(mover: Mover) -> bool:
    """Whether the process that we started still runs, and not another one that has its number now."""
    if mover.began is None or _began(mover.pid) != mover.began:
        return False
    try:
        words = Path(f"/proc/{mover.pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return False
    # In the first instants of a process its command line is empty still.
    return words in ([], [os.fsencode(word) for word in _argv(mover.vm, mover.release)])


def _began(pid: int) -> int | None:
    """When a process was started, None if it has ended (see proc(5): its name may have blanks and brackets in it)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


async def end(vm: str) -> Mover | None:
    """End the mover of a guest and wait until it has given the monitor back. Returns it, None if none ran."""
    mover = find(vm)
    if mover is None:
        return None
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(mover.pid)
        try:
            # Looked at after it was opened: so it is not a later process with the same number.
            if _is_alive(mover):
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
                await _await_end(descriptor, mover)
        finally:
            os.close(descriptor)
    _file(mover.migration).unlink(missing_ok=True)
    return mover


async def _await_end(descriptor: int, mover: Mover) -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(END_SECONDS):
            await ended.wait()
    except TimeoutError as error:
        what = f"the end of process {mover.pid}, which moves data of {mover.vm},"
        raise TimedOutError(what, END_SECONDS, hint=f"read {mover.log}, then: kill -9 {mover.pid}") from error
    finally:
        loop.remove_reader(descriptor)


@asynccontextmanager
async def taken_over(vm: str) -> AsyncIterator[Mover | None]:
    """The mover of a guest gives way to us, and starts again if we fail.

    Raises RefusedError while another command of this controller works on the guest.
    """
    mover = await _ended_whatever_comes(vm)
    try:
        story = shelf.newest_of(vm)
        if story is not None and store.at_work(story.plan.id):
            what = f"another qemu-esd works on {shlex.quote(vm)} (migration {story.plan.id}, {story.state})"
            raise RefusedError(what, hint=f"wait for it, or end it with Ctrl-C; see: qemu-esd status {shlex.quote(vm)}")
        yield mover
    except BaseException:
        restart(mover)
        raise


async def _ended_whatever_comes(vm: str) -> Mover | None:
    """As `end`; cancelled in the middle, the mover ends all the same and is started again."""
    ending = asyncio.ensure_future(end(vm))
    try:
        return await asyncio.shield(ending)
    except asyncio.CancelledError:
        await asyncio.wait({ending})
        restart(ending.result())
        raise


def restart(mover: Mover | None) -> None:
    """Let a mover that was ended go on."""
    if mover is not None:
        start(mover.vm, mover.migration, release=mover.release)
