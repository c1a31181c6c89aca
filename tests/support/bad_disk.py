"""A disk that fails when it is told to: a file system over a folder of a lab host, seen there in the folder's place.

    python -m tests.support.bad_disk FOLDER PID PLACE     what serves it; told by lines of JSON, as `BadDisk` does

It fails reads, writes or flushes of a range of a file, and forgets on demand what was written and not flushed: the
content that a power cut may leave. Nothing is cached above it, so every request meets it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from tests.integration.support.machine import Machine

_CLONE_NEWNS = 0x00020000
# In the file system's options: what `findmnt` shows, and nobody else has.
NAME = "esd-bad-disk"


@dataclass(frozen=True)
class Fault:
    """Requests of this kind that touch `start` to `end` of files whose name has `file` in it fail."""

    kind: Literal["read", "write", "flush"]
    file: str
    start: int = 0
    end: int = 1 << 62
    errno: int = errno.EIO


class BadDisk:
    """What a test holds of it. `hits`: how many requests have met a fault so far."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def fail(self, *faults: Fault) -> None:
        """From now on these, and no others."""
        self._tell({"faults": [asdict(fault) for fault in faults]})

    def mend(self) -> None:
        self.fail()

    def hits(self) -> int:
        return int(self._tell({})["hits"])

    def lose_power(self) -> int:
        """What was not flushed is forgotten. Returns how many writes that were; nobody may have a file open."""
        return int(self._tell({"lose": True})["lost"])

    def _tell(self, words: dict[str, Any]) -> dict[str, Any]:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(words) + "\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer


@contextmanager
def bad_disk(machine: Machine, place: str) -> Iterator[BadDisk]:
    """A bad disk at `place` on a lab host, with what is there now on it. At the end it is taken away again."""
    real = machine.real(place)
    real.mkdir(mode=0o700, exist_ok=True)
    assert machine.lab.init is not None
    argv = (sys.executable, "-m", "tests.support.bad_disk", str(real), str(machine.lab.init.pid), place)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            disk = BadDisk(server)
            disk.hits()
            yield disk
        finally:
            machine.run("umount", "--lazy", place, check=False)
            server.kill()


# ---- what serves it


@dataclass(frozen=True)
class _Write:
    """What a write that is not flushed yet has replaced, and the file's size before it."""

    offset: int
    before: bytes
    size: int


class _Files:
    """The operations of the file system: the folder's own, unless a fault says otherwise."""

    use_ns = True

    def __init__(self, folder: int) -> None:
        self.folder = folder
        self.faults: list[Fault] = []
        self.hits = 0
        # By inode: a descriptor to undo by, and what is to be undone.
        self.unflushed: dict[int, tuple[int, list[_Write]]] = {}

    def init(self, _path: str) -> None:
        """libfuse has gone to / meanwhile, and the folder is covered by us."""
        os.fchdir(self.folder)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            words = json.loads(line)
            if "faults" in words:
                self.faults = [Fault(**fault) for fault in words["faults"]]
            lost = self._lose() if words.get("lose") else 0
            print(json.dumps({"hits": self.hits, "lost": lost}), flush=True)
        os._exit(0)

    def _lose(self) -> int:
        count = 0
        for handle, writes in self.unflushed.values():
            for write in reversed(writes):
                os.pwrite(handle, write.before, write.offset)
                os.ftruncate(handle, write.size)
            count += len(writes)
            os.close(handle)
        self.unflushed.clear()
        return count

    def _meet(self, kind: str, path: str, start: int, end: int) -> None:
        for fault in self.faults:
            if fault.kind == kind and fault.file in path and start < fault.end and fault.start < end:
                self.hits += 1
                raise OSError(fault.errno, os.strerror(fault.errno))

    def _remember(self, handle: int, offset: int, length: int) -> None:
        facts = os.fstat(handle)
        if facts.st_ino not in self.unflushed:
            self.unflushed[facts.st_ino] = (os.dup(handle), [])
        before = os.pread(handle, length, offset)
        self.unflushed[facts.st_ino][1].append(_Write(offset, before, facts.st_size))

    def read(self, path: str, length: int, offset: int, handle: int) -> bytes:
        self._meet("read", path, offset, offset + length)
        return os.pread(handle, length, offset)

    def write(self, path: str, data: bytes, offset: int, handle: int) -> int:
        self._meet("write", path, offset, offset + len(data))
        self._remember(handle, offset, len(data))
        return os.pwrite(handle, data, offset)

    def fsync(self, path: str, _datasync: int, handle: int) -> int:
        self._meet("flush", path, 0, 1 << 62)
        os.fsync(handle)
        own, _ = self.unflushed.pop(os.fstat(handle).st_ino, (None, ()))
        if own is not None:
            os.close(own)
        return 0

    def truncate(self, path: str, length: int, handle: int | None = None) -> int:
        own = os.open(f".{path}", os.O_RDWR) if handle is None else handle
        self._remember(own, length, max(0, os.fstat(own).st_size - length))
        os.ftruncate(own, length)
        if handle is None:
            os.close(own)
        return 0

    def open(self, path: str, flags: int) -> int:
        # Written-only cannot be undone, and alignment is no affair of ours.
        wanted = os.O_RDONLY if flags & os.O_ACCMODE == os.O_RDONLY else os.O_RDWR
        return os.open(f".{path}", wanted | flags & os.O_TRUNC)

    def create(self, path: str, mode: int, _flags: int) -> int:
        return os.open(f".{path}", os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def release(self, _path: str, handle: int) -> int:
        os.close(handle)
        return 0

    def flush(self, _path: str, _handle: int) -> int:
        return 0

    def getattr(self, path: str, handle: int | None = None) -> dict[str, int]:
        facts = os.lstat(f".{path}") if handle is None else os.fstat(handle)
        times = {f"st_{name}": getattr(facts, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}
        names = ("ino", "mode", "nlink", "uid", "gid", "size", "blocks")
        return {**{f"st_{name}": getattr(facts, f"st_{name}") for name in names}, **times}

    def readdir(self, path: str, _handle: int) -> list[str]:
        return [".", "..", *(each.name for each in Path(f".{path}").iterdir())]

    def statfs(self, _path: str) -> dict[str, int]:
        facts = os.statvfs(".")
        names = ("bavail", "bfree", "blocks", "bsize", "favail", "ffree", "files", "frsize", "namemax")
        return {f"f_{name}": getattr(facts, f"f_{name}") for name in names}

    def mkdir(self, path: str, mode: int) -> int:
        Path(f".{path}").mkdir(mode)
        return 0

    def rmdir(self, path: str) -> int:
        Path(f".{path}").rmdir()
        return 0

    def unlink(self, path: str) -> int:
        Path(f".{path}").unlink()
        return 0

    def rename(self, old: str, new: str) -> int:
        Path(f".{old}").rename(f".{new}")
        return 0

    def chmod(self, path: str, mode: int) -> int:
        Path(f".{path}").chmod(mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.chown(f".{path}", uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int]) -> int:
        os.utime(f".{path}", ns=times)
        return 0


def serve(folder: str, pid: str, place: str) -> NoReturn:
    """Be the file system, in the mount namespace of a lab host whose first process is `pid`."""
    # Of the machine's Python, before the host's tree takes the place of it.
    from mfusepy import FUSE

    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    space = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(space, _CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "the mount namespace of the host")
    with suppress(KeyboardInterrupt):
        FUSE(_Files(descriptor), place, foreground=True, nothreads=True, fsname=NAME, direct_io=True)
    sys.exit(0)


if __name__ == "__main__":
    serve(*sys.argv[1:])
