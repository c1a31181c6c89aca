"""Processes of the lab: who they are, whether they live, how they are started and how they end.

A process is started as a *candidate*: it holds one end of a pipe to us and ends by itself when we are gone,
until we *commit* it. So a kill of `lab up` at any line leaves nothing that is not written in lab.json.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from qemu_esd.errors import EsdError, RefusedError, TimedOutError

START_SECONDS = 30.0
KILL_SECONDS = 20.0
SBIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Fields of /proc/PID/stat, counted from the state on (proc(5): 9 and 22), and a flag of the kernel's sched.h.
_FLAGS, _START_TIME, _PF_EXITING = 6, 19, 0x4
_INIT = Path(__file__).with_name("init.py")


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number. `start`: clock ticks since boot."""

    pid: int
    start: int

    @property
    def alive(self) -> bool:
        """False from the moment it begins to end: its locks are free by then, while much else is still there."""
        fields = _stat(self.pid)
        return _start(fields) == self.start and not int(fields[_FLAGS]) & _PF_EXITING


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; none if there is no such process, or only its zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The name in the second field may hold blanks and brackets, so count from the last bracket on.
    fields = text.rpartition(")")[2].split()
    return [] if fields[0] in "ZX" else fields


def _start(fields: list[str]) -> int | None:
    return int(fields[_START_TIME]) if fields else None


def kill(process: Process) -> None:
    """End a process at once and wait until it is gone; gone already is fine.

    For the first process of a PID namespace the kernel ends all the others there before it is gone itself.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # Looked at after the handle was opened: the number cannot be given to somebody else in between.
        if _start(_stat(process.pid)) == process.start:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            if not readable(handle, KILL_SECONDS):
                raise TimedOutError(f"the end of process {process.pid}", KILL_SECONDS)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def readable(descriptor: int, seconds: float) -> bool:
    """Wait until there is something to read, or the end. (`select` itself cannot take descriptors above 1023.)"""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


class Candidate:
    """A process that is starting, and that ends with us unless it is committed."""

    def __init__(self, name: str, child: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._child = child
        self._log = log
        self._told: dict[str, int | str] = {}
        self._rest = b""

    def identity(self) -> Process:
        """Who it is. Raises RefusedError if it could not be made."""
        pid = int(self._wait_for("pid"))
        start = _start(_stat(pid))
        if start is None:
            raise self._failure()
        return Process(pid, start)

    def wait_ready(self) -> None:
        self._wait_for("ready")

    def commit(self) -> None:
        """From here on it lives on without us."""
        _pipe(self._child.stdin).write(b"\n")

    def close(self) -> None:
        """Let go of it, and wait until it has noticed: a committed one stays, any other ends."""
        stdin, stdout = _pipe(self._child.stdin), _pipe(self._child.stdout)
        stdin.close()
        # It closes its end when it is committed or gone; whatever it still says is of no interest.
        while readable(stdout.fileno(), START_SECONDS) and os.read(stdout.fileno(), 4096):
            pass
        stdout.close()
        self._child.wait()

    def _wait_for(self, key: str) -> int | str:
        deadline = time.monotonic() + START_SECONDS
        while key not in self._told:
            if "error" in self._told:
                raise self._failure()
            self._read_message(max(0.0, deadline - time.monotonic()))
        return self._told[key]

    def _read_message(self, seconds: float) -> None:
        stdout = _pipe(self._child.stdout)
        if not readable(stdout.fileno(), seconds):
            raise TimedOutError(f"the start of {self.name}", START_SECONDS, hint=f"read {self._log}")
        data = os.read(stdout.fileno(), 4096)
        if not data:
            raise self._failure()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._told.update(json.loads(line))

    def _failure(self) -> EsdError:
        reason = self._told.get("error") or _last_line(self._log) or "it ended at once"
        return RefusedError(
            f"cannot start {self.name}: {reason}",
            hint="the lab needs the right to make namespaces and mounts; in a container: run it privileged",
        )


def start_candidate(role: str, root: Path, name: str, facts: Mapping[str, object], log: Path, lock: int) -> Candidate:
    """Start init.py as `role` ("switch" or "host"). It keeps `lock` locked until it is committed or gone."""
    argv = [sys.executable, "-I", "-S", str(_INIT), role, str(root), name]
    with log.open("wb") as stderr:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            cwd="/",
            env={"PATH": SBIN},
            pass_fds=(lock,),
            start_new_session=True,
        )
    # A broken pipe means that it is gone already; whoever waits for its first words learns why.
    with suppress(BrokenPipeError):
        _pipe(child.stdin).write(json.dumps({"lock": lock, **facts}).encode() + b"\n")
    return Candidate(name, child, log)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
