"""Who uses a device on a host: the programs that are connected to its local socket."""

from __future__ import annotations

import re
from dataclasses import dataclass

from qemu_esd.hosts.base import Host, run

# Ours: a gate, and what leads from us to a host.
_OURS = ("qemu-storage-da", "qemu-storage-d", "sshd")
_ENDS = r"(?P<local>\S+) (?P<inode>\d+)\s+(?P<peer>\S+) (?P<other>\d+)"
_ROW = re.compile(rf"^\S+\s+\S+\s+\S+\s+{_ENDS}(?:\s+(?P<who>.*))?$")
_WHO = re.compile(r'\("([^"]*)",pid=(\d+)')


@dataclass(frozen=True)
class Client:
    """A program that has a device open on a host: its name and its process id there."""

    program: str
    pid: int


async def clients(host: Host, socket: str) -> tuple[Client, ...]:
    """All but our own daemons."""
    done = await run(host, ("ss", "-Hxpn", "state", "established"))
    return tuple(sorted(set(found(done.text, socket)), key=lambda client: client.pid))


def found(told: str, socket: str) -> list[Client]:
    """Of what `ss -Hxpn` tells: the other ends of the connections to `socket`."""
    rows = [match for line in told.splitlines() if (match := _ROW.match(line))]
    owners = {row["inode"]: _WHO.findall(row["who"] or "") for row in rows}
    ends = [owners.get(row["other"], []) for row in rows if row["local"] == socket]
    return [Client(name, int(pid)) for end in ends for name, pid in end[:1] if not name.startswith(_OURS)]
