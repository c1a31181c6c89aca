"""Ports that a command of this controller has chosen for a migration, until something listens there.

Two commands at once look at the same hosts, see the same ports free, and would choose the same ones.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from qemu_esd.journal.store import room


class Claims:
    """What one command holds: each port of a host is a file that it has locked, gone with the command."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def take(self, host: str, port: int) -> bool:
        """Whether the port is ours from now on. Raises JournalError."""
        path = _folder() / f"{host}-{port}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if not _locked(descriptor, path):
            os.close(descriptor)
            return False
        # The last one first: the file goes while it is locked.
        self._stack.callback(os.close, descriptor)
        self._stack.callback(path.unlink, missing_ok=True)
        return True


@contextmanager
def opened() -> Iterator[Claims]:
    """Claims that end with the context."""
    with ExitStack() as stack:
        yield Claims(stack)


def _folder() -> Path:
    return room("ports")


def _locked(descriptor: int, path: Path) -> bool:
    """Between opening and locking it, who had it may have removed it: then it is worth nothing."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
