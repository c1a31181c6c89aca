"""What the user asks of `migrate`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from qemu_esd.errors import UsageError
from qemu_esd.model.disk import Disk
from qemu_esd.model.pace import Bandwidth
from qemu_esd.model.plan import Transport
from qemu_esd.model.policy import Handler, ReadErrors

# Two of these are used by a migration: one on each host.
DEFAULT_PORTS = range(49800, 49900)


@dataclass(frozen=True)
class Request:
    """The words of one `migrate`. `source` None: where the guest is known to run; rates in bytes/s, times in ms."""

    vm: str
    target: str
    handler: Handler
    source: str | None = None
    disk_handlers: Mapping[str, Handler] = field(default_factory=dict)
    transport: Transport = Transport.TLS
    local_space: bool = True
    read_errors: ReadErrors = ReadErrors.STOP
    overlay_folder: str | None = None
    bandwidth: Bandwidth = None
    downtime_ms: int | None = None
    ports: range = DEFAULT_PORTS

    def __post_init__(self) -> None:
        """Raises UsageError for what can be seen to be wrong without any host."""
        if self.overlay_folder is not None and not _is_whole_path(self.overlay_folder):
            what = f"{self.overlay_folder!r} is not a whole path of a folder"
            raise UsageError(what, hint=f"write --overlay-dir as it is on {self.target}, from / on and without ..")

    def handler_of(self, disk: Disk) -> Handler:
        return self.disk_handlers.get(disk.id, self.handler)

    def check_disks(self, disks: tuple[Disk, ...]) -> None:
        """Raises UsageError for a disk name that the VM has not."""
        names = [disk.id for disk in disks]
        for name in self.disk_handlers:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"its disks are {', '.join(names) or 'none'}"
                raise UsageError(f"{self.vm} has no disk {name!r}", hint=hint)


def _is_whole_path(path: str) -> bool:
    """It means the same in any folder, and goes where it says."""
    return path.startswith("/") and ".." not in path.split("/") and path.isprintable()
