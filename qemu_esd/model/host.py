"""Where things live on a host. Pure path arithmetic; the folders are 0700 and made by whoever holds them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,39}")


def vm_key(name: str) -> str:
    """A file name for a VM name: the name itself where it is harmless, else a readable part and a digest."""
    if _PLAIN.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:20]
    # A name out of a command line may hold bytes that are no UTF-8.
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:12]
    return f"{readable or 'vm'}.{digest}"


@dataclass(frozen=True)
class HostPaths:
    """The two roots on a host: `state` survives a reboot, `run` holds sockets (short: they end at 107 bytes)."""

    state: str
    run: str

    def vm_state(self, vm: str) -> str:
        """The folder of a guest's record and logs."""
        return f"{self.state}/vm/{vm_key(vm)}"

    def vm_run(self, vm: str) -> str:
        """The folder of a guest's sockets."""
        return f"{self.run}/vm/{vm_key(vm)}"

    def guest_record(self, vm: str) -> str:
        return f"{self.vm_state(vm)}/guest.json"

    def console_log(self, vm: str, generation: int) -> str:
        """What the guest said here, one file per switchover."""
        return f"{self.vm_state(vm)}/console.{generation:04}.log"

    def overlay(self, vm: str, suid: str, generation: int, folder: str | None = None) -> str:
        """A device's member on this host; in `folder` where the user wants it elsewhere."""
        return f"{folder or self.state + '/disks'}/{vm_key(vm)}.{suid}.g{generation}.qcow2"

    def link_state(self, migration: str) -> str:
        """The folder of one end of a link: its record and its keys, which the TLS objects are named after."""
        return f"{self.state}/link/{migration}"

    def link_run(self, migration: str) -> str:
        """The folder of one end of a link: its sockets."""
        return f"{self.run}/link/{migration}"

    def guest_run(self, migration: str) -> str:
        """The folder of those sockets of a link that a domain's QEMU makes or opens; its user owns it."""
        return f"{self.run}/guest/{migration}"

    def unit(self, name: str) -> str:
        """The folder of a supervised process."""
        return f"{self.state}/unit/{name}"


@dataclass(frozen=True)
class GuestSockets:
    """The unix sockets of a QEMU that we start: three monitors (one client each), the console, and its NBD server.

    `control` is for whoever changes the guest (being its client is the mutex), `observe` for status and map,
    `user` for ad hoc QMP.
    """

    control: str
    observe: str
    user: str
    console: str
    nbd: str


def guest_sockets(paths: HostPaths, vm: str) -> GuestSockets:
    """Where they are for a guest on one host."""
    run = paths.vm_run(vm)
    return GuestSockets(*(f"{run}/{name}.sock" for name in ("control", "observe", "user", "console", "nbd")))
