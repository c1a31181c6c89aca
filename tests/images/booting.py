"""A real guest with real disks for the tests of this directory, its console in hand."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images.build import KERNEL_WORDS, GuestImage, build
from images.console import LoadLine, parse

WAIT = 60.0  # seconds until a line is given up; a boot takes three


class Guest:
    """A running guest: `ask` gives it a command, `wait` takes its lines, `lines` are those taken so far."""

    def __init__(self, image: GuestImage, devices: tuple[str, ...], append: str) -> None:
        argv = [
            "qemu-system-x86_64",
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-m",
            "256",
            "-nodefaults",
            "-no-reboot",
        ]
        argv += ["-display", "none", "-serial", "stdio", *devices]
        argv += ["-kernel", str(image.kernel), "-initrd", str(image.initrd)]
        argv += ["-append", f"{KERNEL_WORDS} {append}"]
        self.qemu = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines: list[LoadLine] = []
        self._console: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.qemu.stdout is not None
        for line in self.qemu.stdout:
            self._console.put(line)
        self._console.put(None)

    def wait(self, word: str) -> LoadLine:
        """The next line with `word`. Fails when the guest ends first, or when it does not come for long."""
        deadline = time.monotonic() + WAIT
        while (text := self._console.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
            line = parse(text)
            if line is None:
                continue
            self.lines.append(line)
            if line.word == word:
                return line
        raise AssertionError(f"the guest ended before {word!r}; it said {self.lines[-5:]}")

    def ask(self, command: str, answer: str | None = None) -> LoadLine:
        """Types `command`, and waits for the line that answers it."""
        assert self.qemu.stdin is not None
        self.qemu.stdin.write(command + "\n")
        self.qemu.stdin.flush()
        return self.wait(answer or command.split()[0])

    def disks(self) -> dict[str, LoadLine]:
        """What the guest sees of its disks now, by name."""
        start = len(self.lines)
        self.ask("disks")
        return {line.values["name"]: line for line in self.lines[start:] if line.word == "disk"}

    def end(self) -> None:
        self.qemu.kill()
        self.qemu.communicate()
        self._reader.join()


@contextmanager
def booted(devices: tuple[str, ...], append: str) -> Iterator[Guest]:
    guest = Guest(build(), devices, append)
    try:
        guest.wait("ready")
        yield guest
    finally:
        guest.end()


def raw_disk(path: Path, name: str, device: str, properties: str = "") -> tuple[str, ...]:
    blockdev = {"driver": "raw", "node-name": name, "file": {"driver": "file", "filename": str(path)}}
    return (
        "-blockdev",
        json.dumps(blockdev),
        "-device",
        f"{device},drive={name},serial={name}-serial{properties}",
    )
