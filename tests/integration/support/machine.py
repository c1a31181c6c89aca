"""A lab host as a test sees it from the machine: its files, processes and sockets, and what of ours is on it.

Nothing here goes through the code under test: a host's tree is read below /proc/PID/root of its first process, and
its processes are those in that process's PID namespace.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qemu_esd.hosts.lab import LabHost

STATE, RUN, SRV = "/var/lib/qemu-esd", "/run/qemu-esd", "/srv"
SSH = "/var/lib/qemu-esd-home/.ssh"
# Shells that look at something again and again: the watch of a link, the guard of images.
LOOPS = ("esd-watch", "esd-guard")
# Kept from test to test: which accelerator works, which takes seconds to find out.
KEPT = ("accel",)
ENDED_SECONDS = 60.0


@dataclass(frozen=True)
class Process:
    """A process on a host; `pid` as the machine counts."""

    pid: int
    parent: int
    argv: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.argv)[:200]


@dataclass(frozen=True)
class Machine:
    """One lab host."""

    lab: LabHost

    @property
    def name(self) -> str:
        return self.lab.name

    @property
    def address(self) -> str:
        return self.lab.address

    @property
    def _init(self) -> int:
        assert self.lab.init is not None
        return self.lab.init.pid

    def path(self, inside: str) -> Path:
        """The machine's path of a path on the host."""
        return Path(f"/proc/{self._init}/root{inside}")

    def real(self, inside: str) -> Path:
        """The same for what is below /srv or our state: a path that also tools see which do not follow /proc."""
        for top, folder in ((SRV, "srv"), (STATE, "state")):
            if inside == top or inside.startswith(f"{top}/"):
                return self.lab.data / folder / inside[len(top) :].lstrip("/")
        raise ValueError(f"{inside} is not on the host's disk")

    def run(
        self, *argv: str, check: bool = True, stdin: str = "", seconds: float = 20
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as the host's root, in all of its namespaces; for so many seconds at most."""
        enter = ("nsenter", f"--target={self._init}", "--all", "--wd=/", "--", *argv)
        done = subprocess.run(enter, input=stdin, capture_output=True, text=True, check=False, timeout=seconds)
        assert not check or done.returncode == 0, f"{self.name}: {argv} ended with {done.returncode}: {done.stderr}"
        return done

    def processes(self) -> tuple[Process, ...]:
        """What runs there, without the first process, sshd, and what an ssh session does right now."""
        everything = {process.pid: process for process in self.everything()}
        return tuple(
            process
            for process in everything.values()
            if process.pid != self._init and not any("sshd" in one.argv[0] for one in _line(process, everything))
        )

    def _lasting(self) -> Iterator[Process]:
        """What runs there, without what the loops of ours begin, and end, every few seconds."""
        everything = {process.pid: process for process in self.everything()}
        for process in self.processes():
            _, *ancestors = _line(process, everything)
            if not any(loop in one.argv for loop in LOOPS for one in ancestors):
                yield process

    def everything(self) -> Iterator[Process]:
        """All of them."""
        space = str(Path(f"/proc/{self._init}/ns/pid").readlink())
        for folder in Path("/proc").iterdir():
            # Gone meanwhile, or a zombie that has no namespace any more.
            with suppress(OSError):
                if folder.name.isdecimal() and str((folder / "ns/pid").readlink()) == space:
                    process = _process(folder)
                    # Without words: it is ending.
                    if process.argv:
                        yield process

    def find(self, *words: str) -> tuple[Process, ...]:
        """The processes in whose command line each of `words` occurs."""
        return tuple(process for process in self.processes() if all(word in " ".join(process.argv) for word in words))

    def qemu(self, name: str) -> Process:
        """The only QEMU called `name`."""
        found = self.qemus(name)
        assert len(found) == 1, f"{self.name} has {len(found)} QEMUs called {name}"
        return found[0]

    def qemus(self, name: str) -> tuple[Process, ...]:
        return tuple(
            process for process in self.processes() if "qemu-system" in process.argv[0] and _name(process.argv) == name
        )

    def path_handlers(self) -> tuple[Process, ...]:
        return tuple(process for process in self.processes() if process.argv[0].endswith("qemu-storage-daemon"))

    def ssh_sessions(self) -> tuple[Process, ...]:
        """The processes of sshd that serve a connection, and not the one that waits for them."""
        return tuple(process for process in self.everything() if process.argv[0].startswith("sshd: "))

    def listening(self) -> frozenset[str]:
        """Where something listens for TCP, as ADDRESS:PORT, without sshd."""
        rows = self.run("ss", "-Htln").stdout.splitlines()
        return frozenset(row.split()[3] for row in rows) - {"0.0.0.0:22", "[::]:22"}

    def sent_bytes(self, peer: Machine) -> int:
        """Bytes that this host has sent to `peer` since the lab is up."""
        rows = json.loads(self.run("ip", "-json", "-s", "link", "show", "dev", f"to-{peer.name}").stdout)
        return int(rows[0]["stats64"]["tx"]["bytes"])

    def files(self, *folders: str) -> dict[str, tuple[int, int, int]]:
        """Every file, socket and folder below `folders`: (mode, size, time of its last change; a folder's is 0)."""
        found: dict[str, tuple[int, int, int]] = {}
        for folder in folders:
            for path in sorted(self.path(folder).rglob("*")):
                with suppress(FileNotFoundError):
                    facts = path.lstat()
                    is_folder = path.is_dir()
                    inside = folder + "/" + str(path.relative_to(self.path(folder)))
                    found[inside] = (
                        facts.st_mode,
                        0 if is_folder else facts.st_size,
                        0 if is_folder else facts.st_mtime_ns,
                    )
        return found

    def snapshot(self) -> Mapping[str, object]:
        """All by which a test sees that nothing was touched: files, processes, ports."""
        return {
            **self.files(SRV, STATE, RUN, SSH, "/tmp"),
            "processes": sorted((process.pid, process.argv) for process in self._lasting()),
            "ports": sorted(self.listening()),
        }

    def logs(self) -> str:
        """What the units of this host have said."""
        paths = self.path(f"{STATE}/unit").glob("*/log")
        return "\n".join(f"{self.name} {path.parent.name}: {_text(path)}" for path in paths)

    def leftovers(self) -> list[str]:
        """What of ours is there although no guest is: all but images, and what the test itself has put into /srv."""
        images = (f"{STATE}/disks/", f"{STATE}/accel")
        roots = (STATE, RUN, "/tmp")
        files = [path for path in self.files(*roots) if not path.startswith(images) and path not in _ROOMS]
        keys = [line for line in self._authorized() if "qemu-esd" in line]
        return [*files, *keys, *(str(process) for process in self.processes()), *sorted(self.listening())]

    def _authorized(self) -> list[str]:
        path = self.path(f"{SSH}/authorized_keys")
        return path.read_text().splitlines() if path.exists() else []

    def remove(self, pattern: str) -> None:
        """Remove files of the test's own."""
        folder, _, name = pattern.rpartition("/")
        for path in self.path(folder).glob(name):
            path.unlink()

    def sweep(self) -> None:
        """Remove all that a test has made, whatever state it is in."""
        self._end_all()
        for folder in (STATE, RUN, SRV, "/tmp"):
            for path in self.path(folder).glob("*"):
                if path.name not in KEPT:
                    _remove(path)
        own = [line for line in self._authorized() if "qemu-esd-migration" not in line]
        self.path(f"{SSH}/authorized_keys").write_text("".join(f"{line}\n" for line in own))

    def sweep_processes(self, words: str) -> None:
        """End what a test has started, found by words of its command line."""
        for process in self.find(words):
            kill(process.pid)

    def _end_all(self) -> None:
        # In rounds, because a supervisor that is killed second starts its process again.
        deadline = time.monotonic() + ENDED_SECONDS
        while left := self.processes():
            for process in left:
                kill(process.pid)
            assert time.monotonic() < deadline, f"{self.name}: {left} do not end"
            time.sleep(0.01)


# Folders that may stay when they are empty.
_ROOMS = frozenset([f"{root}/{room}" for root in (STATE, RUN) for room in ("vm", "link", "unit", "disks", "device")])


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return "(removed meanwhile)"


def _process(folder: Path) -> Process:
    argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
    return Process(int(folder.name), int(parent), tuple(argv))


def _line(process: Process, everything: Mapping[int, Process]) -> Iterator[Process]:
    """The process and its ancestors on the host."""
    now: Process | None = process
    while now is not None and now.argv:
        yield now
        now = everything.get(now.parent)


def _name(argv: Sequence[str]) -> str:
    """What -name says; a doubled comma is one that is meant."""
    value = argv[argv.index("-name") + 1] if "-name" in argv else ""
    return value.replace(",,", "\0").split(",")[0].replace("\0", ",").removeprefix("guest=")


def kill(pid: int, how: signal.Signals = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, how)


async def ended(pid: int) -> None:
    """Return when a process is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(handle, gone.set)
        try:
            await asyncio.wait_for(gone.wait(), ENDED_SECONDS)
        finally:
            loop.remove_reader(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
