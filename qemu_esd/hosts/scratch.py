"""A folder of this process for sockets that it forwards: 0700, gone with the process, however that ends."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "qemu-esd-sockets-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder; removed at the end. What processes of ours have left that were killed goes first."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            _remove_if_orphaned(path)
    folder, descriptor = _make()
    try:
        yield folder
    finally:
        with suppress(OSError):
            _remove(folder)
        os.close(descriptor)


def _make() -> tuple[Path, int]:
    """A folder, and the lock on it that says that its process lives."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Before it is locked, another process may take it for an orphan.
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)


def _remove_if_orphaned(folder: Path) -> None:
    """Remove it if it is ours and its process has ended."""
    if folder.lstat().st_uid != os.getuid():
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Sockets and the empty folder, nothing else: what else somebody keeps under such a name stays."""
    for path in folder.glob("*.sock"):
        if path.is_socket():
            path.unlink()
    folder.rmdir()
