"""The serial console of a guest: what it has said so far, on whichever hosts, and what it is told.

QEMU records the console in a file per switchover; a line that is cut by a switchover goes on in the next file.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from pathlib import Path

from images.console import LoadLine, parse

POLL_SECONDS = 0.02
END_SECONDS = 10.0
WAIT_SECONDS = 60.0  # under load, a boot takes ten


class Console:
    """Lines of the load, in order, each taken once."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._at = 0
        self._rest = ""
        self._fresh: list[LoadLine] = []
        self.lines: list[LoadLine] = []

    def follow(self, file: Path) -> None:
        """From now on the guest writes to `file`; what the former one has is taken first. It may be the same."""
        if self._file is not None:
            self._read()
        if file != self._file:
            self._file, self._at = file, 0

    def _read(self) -> None:
        assert self._file is not None
        try:
            with self._file.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return
        self._at += len(data)
        *whole, self._rest = (self._rest + data.decode(errors="replace")).split("\n")
        self._fresh += [line for line in map(parse, whole) if line]

    def skip(self) -> None:
        """Whatever has been said so far is of no interest."""
        self._read()
        self.lines += self._fresh
        self._fresh = []

    async def wait(self, word: str, seconds: float = WAIT_SECONDS) -> LoadLine:
        """The next line with `word`."""
        deadline = time.monotonic() + seconds
        while True:
            self._read()
            while self._fresh:
                line = self._fresh.pop(0)
                self.lines.append(line)
                if line.word == word:
                    return line
            assert time.monotonic() < deadline, f"no {word!r} in {seconds:g} s; it said: {self._last_words()}"
            await asyncio.sleep(POLL_SECONDS)

    def _last_words(self) -> str:
        assert self._file is not None
        return self._file.read_bytes()[-1500:].decode(errors="replace")


class Terminal:
    """Somebody at the console, for as long as the guest's QEMU runs.

    One connection, and always read: while QEMU still writes to one that has been closed, the guest's words are lost,
    and while the socket is full (a few hundred characters fill it) the guest's console waits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        # A process, because a thread would have to wait for ours; it ends with the connection.
        self._reader = subprocess.Popen(["cat"], stdin=self._socket.fileno(), stdout=subprocess.DEVNULL)

    def type(self, text: str) -> None:
        self._socket.sendall(f"{text}\n".encode())

    def leave(self) -> None:
        """Its QEMU has ended, and with it what read from there."""
        self._socket.close()
        self._reader.wait(END_SECONDS)
