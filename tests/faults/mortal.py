"""The command line, killed as by `kill -9`, or stopped, at a record of its journal or between two acts.

    python -m tests.faults.mortal MOMENT WORDS...

MOMENT: N, killed right after the record N is on the disk, counted in this process from 1; before:STATE, killed when it
is about to write that down; asleep:STATE, stopped (SIGSTOP) right after it has; command:N, killed when it is about to
give a host its command N; question:N, killed when it is about to ask a QEMU or a path handler for the Nth time;
write:N, killed when it is about to write the record of a device, or what a daemon of it is to run, for the Nth time;
at:MODULE.FUNCTION, killed when it is about to call that.
One that does not come so far ends by itself.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any

from qemu_esd.cli.app import main
from qemu_esd.hosts import service
from qemu_esd.hosts.base import Completed
from qemu_esd.hosts.ssh import SshHost
from qemu_esd.journal.store import Journal
from qemu_esd.model.record import Entered, Entry
from qemu_esd.phases import device_records
from qemu_esd.qmp.session import Session


def be_mortal(moment: str) -> None:
    """Let this process die, or stop, there; what the record was is told on stderr."""
    append, written = Journal.append, 0

    def append_and_die(journal: Journal, entry: Entry) -> None:
        nonlocal written
        state = entry.state if isinstance(entry, Entered) else None
        if moment == f"before:{state}":
            get(signal.SIGKILL, entry)
        append(journal, entry)
        written += 1
        if moment == str(written):
            get(signal.SIGKILL, entry)
        if moment == f"asleep:{state}":
            get(signal.SIGSTOP, entry)

    Journal.append = append_and_die  # type: ignore[method-assign, assignment]


def die_before_command(number: int) -> None:
    """Commands are counted over all hosts, from 1."""
    attempt, given = SshHost.attempt, 0

    async def attempt_or_die(host: SshHost, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        nonlocal given
        given += 1
        if given == number:
            get(signal.SIGKILL, argv)
        return await attempt(host, argv, stdin)

    SshHost.attempt = attempt_or_die  # type: ignore[method-assign, assignment]


def die_before_question(number: int) -> None:
    """QMP commands are counted over all monitors, from 1."""
    execute, asked = Session.execute_dict, 0

    async def execute_or_die(session: Session, command: str, arguments: dict[str, Any]) -> Any:
        nonlocal asked
        asked += 1
        if asked == number:
            get(signal.SIGKILL, command)
        return await execute(session, command, arguments)

    Session.execute_dict = execute_or_die  # type: ignore[method-assign, assignment]


def die_before_write(number: int) -> None:
    """What is on a host's disk decides what comes back after a kill there: counted over all hosts, from 1."""
    written = 0

    def mortal(write: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def write_or_die(*words: Any) -> None:
            nonlocal written
            written += 1
            if written == number:
                get(signal.SIGKILL, words[1:])
            await write(*words)

        return write_or_die

    for module, name in ((device_records, "write"), (service, "rewrite")):
        setattr(module, name, mortal(getattr(module, name)))


def die_at(place: str) -> None:
    """`place` is a function of a module, which others call by the module's name."""
    module, _, name = place.rpartition(".")

    def die(*_: Any, **__: Any) -> Any:
        get(signal.SIGKILL, place)

    setattr(import_module(f"qemu_esd.{module}"), name, die)


def get(number: signal.Signals, at: object) -> None:
    print(at, file=sys.stderr, flush=True)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    kind, _, count = sys.argv[1].partition(":")
    counted = {"command": die_before_command, "question": die_before_question, "write": die_before_write}
    if kind == "at":
        die_at(count)
    elif kind in counted:
        counted[kind](int(count))
    else:
        be_mortal(sys.argv[1])
    sys.argv[:2] = ["qemu-esd"]
    main()
