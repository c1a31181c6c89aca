"""A real QEMU for a test, and the little QMP that the tests need."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qemu_esd.hypervisors.cmdline.carried import Place

BINARY = "qemu-system-x86_64"
PATIENCE = 60  # seconds until a test gives up on an answer


class Qmp:
    """One QMP session. Events that arrive while a command is answered are kept in `events`."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        self.stream = connection.makefile("rw")
        self.events: list[dict[str, Any]] = []
        assert "QMP" in self.receive()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: Any) -> Any:
        self.stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.stream.flush()
        while "event" in (message := self.receive()):
            self.events.append(message)
        assert "return" in message, f"{command}: {message}"
        return message["return"]

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.stream.readline())
        return message

    def migrated(self) -> str:
        """Waits for the end of a migration: "completed" or "failed"."""
        while True:
            event = self.events.pop(0) if self.events else self.receive()
            status = event.get("data", {}).get("status")
            if event.get("event") == "MIGRATION" and status in ("completed", "failed"):
                return str(status)

    def devices(self) -> str:
        return str(self("human-monitor-command", **{"command-line": "info qtree"}))

    def media(self) -> dict[str, str | None]:
        """Which file is at which place of which bus."""
        blocks = [block for block in self("query-block") if block.get("qdev")]
        return {self.address(block): block.get("inserted", {}).get("file") for block in blocks}

    def address(self, block: dict[str, Any]) -> str:
        """The bus of a disk, and its place there."""
        path = device_path(block)
        bus = self("qom-get", path=path, property="parent_bus")
        keys = ("legacy-addr", "unit", "channel", "scsi-id", "lun")
        known = {one["name"] for one in self("qom-list", path=path)}
        place = [f"{key}={self('qom-get', path=path, property=key)}" for key in keys if key in known]
        return " ".join([re.sub(r"\[\d+\]", "", bus), *place])

    def place(self, drive: str) -> Place:
        """Where the device of a drive sits that has no -device."""
        block = next(block for block in self("query-block") if block["device"] == drive)
        path = device_path(block)
        driver = self("qom-get", path=path, property="type")
        bus = self("qom-get", path=path, property="parent_bus").rpartition("/")[2]
        if driver.startswith("ide-"):
            return Place(driver, bus, unit=str(self("qom-get", path=path, property="unit")))
        return Place(driver, bus, addr="0x" + self("qom-get", path=path, property="legacy-addr"))


def device_path(block: dict[str, Any]) -> str:
    """The QOM path of the device in an entry of query-block, which gives the id instead if there is one."""
    name = str(block["qdev"]).removesuffix("/virtio-backend")
    return name if name.startswith("/") else f"/machine/peripheral/{name}"


@contextlib.contextmanager
def qemu(argv: Sequence[str], monitor: Path, log: Path) -> Iterator[Qmp]:
    """Runs `argv`, whose monitor listens at `monitor`; ends the process whatever happens."""
    with log.open("w+") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            connection = _connected(process, monitor, log)
            yield Qmp(connection)
            connection.close()
        finally:
            process.kill()
            process.wait()


def _connected(process: subprocess.Popen[bytes], monitor: Path, log: Path) -> socket.socket:
    """The monitor's socket exists when QEMU has made its chardevs; nothing tells us when, so we look."""
    connection = socket.socket(socket.AF_UNIX)
    while True:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            connection.connect(str(monitor))
            return connection
        assert process.poll() is None, log.read_text()
        select.select([], [], [], 0.02)


def make_image(path: Path, format: str = "raw", size: str = "16M") -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", format, str(path), size], check=True)
    return path


def device_tree(qtree: str) -> list[str]:
    """`info qtree` in an order of its own, without the names of what is on the host's side of a device."""
    lines = [line for line in qtree.splitlines() if not _HOST_SIDE.match(line)]
    return _sorted_lines([re.sub(r', id ".*"', "", line) for line in lines])


# Also write-cache: "auto" takes it from the drive, "off" says it. Another test looks at what comes of it.
_HOST_SIDE = re.compile(r" *(drive|chardev|rerror|werror|write-cache) = ")


def _sorted_lines(lines: list[str]) -> list[str]:
    """Indented lines with the siblings sorted on every floor: QEMU lists devices in the order of making."""
    groups: list[list[str]] = []
    for line in lines:
        if groups and _depth(line) > _depth(groups[-1][0]):
            groups[-1].append(line)
        else:
            groups.append([line])
    return [line for group in sorted([g[0], *_sorted_lines(g[1:])] for g in groups) for line in group]


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())
