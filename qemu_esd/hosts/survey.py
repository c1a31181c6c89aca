"""What a host says of itself beside its programs: clock, rights, room, units. One round trip, nothing is touched."""

from __future__ import annotations

import time
from dataclasses import dataclass

from qemu_esd.hosts.base import Host, shell
from qemu_esd.model.host import HostPaths

_LOOK = r"""
echo "time=$(date +%s.%N)"
echo "uid=$(id -u)"
p=$1/disks; while [ ! -e "$p" ]; do p=$(dirname -- "$p"); done
echo "free=$(df -B1 --output=avail -- "$p" | tail -n 1)"
if [ -e "$1" ]; then echo "state=$(stat -c '%u %a' -- "$1")"; fi
if [ -w "$p" ]; then echo "writable=yes"; fi
if [ -e /dev/kvm ]; then echo "kvm=yes"; fi
for u in "$1"/unit/*/; do if [ -d "$u" ]; then echo "unit=$(basename -- "$u")"; fi; done
for f in "$1"/*.new "$1"/*/*/*.new; do if [ -e "$f" ]; then echo "torn=$f"; fi; done
"""


@dataclass(frozen=True)
class Survey:
    """`clock_ahead` of ours, give or take `clock_error` (seconds); `free` bytes for overlays.

    `owner` and `mode` (octal) of our state folder are None where there is none yet. `torn` are files whose writing was
    broken off.
    """

    clock_ahead: float
    clock_error: float
    uid: int
    free: int
    owner: int | None
    mode: str | None
    writable: bool
    kvm_node: bool
    units: tuple[str, ...]
    torn: tuple[str, ...]


async def look(host: Host, paths: HostPaths) -> Survey:
    """Raises HostError, CommandFailedError."""
    before = time.time()
    told = (await shell(host, _LOOK, paths.state)).text
    after = time.time()
    pairs = [line.partition("=")[::2] for line in told.splitlines()]
    facts = dict(pairs)
    owner, _, mode = facts.get("state", "").partition(" ")
    return Survey(
        clock_ahead=float(facts["time"]) - (before + after) / 2,
        clock_error=(after - before) / 2,
        uid=int(facts["uid"]),
        free=int(facts["free"]),
        owner=int(owner) if owner else None,
        mode=mode or None,
        writable="writable" in facts,
        kvm_node="kvm" in facts,
        units=tuple(value for key, value in pairs if key == "unit"),
        torn=tuple(value for key, value in pairs if key == "torn"),
    )
