"""What the QEMU programs of a host can do beside starting guests: block drivers, and CPUs that really run there.

Each is asked of a program that ends at once; nothing is left, and no running guest is touched.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

from qemu_esd.hosts.base import Host, shell
from qemu_esd.hypervisors.versions import BINARY, Version

DAEMON = "qemu-storage-daemon"
# What a path handler is made of, and what a guest's disks are made of on the target.
DAEMON_DRIVERS = ("file", "raw", "qcow2", "nbd", "blkdebug")
QEMU_DRIVERS = ("qcow2", "nbd", "copy-on-read", "blkdebug", "null-co")
# CPU models from the oldest to the newest; a guest is to have one that all its hosts have.
GENERATIONS = (
    *("qemu64", "kvm64", "Conroe", "Penryn", "Opteron_G1", "Opteron_G2", "Opteron_G3", "Nehalem", "Westmere"),
    *("SandyBridge", "IvyBridge", "Haswell-noTSX", "Broadwell-noTSX", "Skylake-Server-noTSX-IBRS"),
    *("Cascadelake-Server-noTSX", "Icelake-Server-noTSX", "SapphireRapids", "GraniteRapids"),
    *("EPYC", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa"),
)
# Longer than any of these takes on a busy machine.
SECONDS = "20"

# A driver that is not there is refused as such, any other one for what it lacks; and one that lacks nothing must not
# run, for which the object at the end sees.
_DRIVERS = r"""
program=$1; shift
for d; do
    said=$(timeout 20 "$program" --blockdev "driver=$d,node-name=n" --object esd-none 2>&1 </dev/null)
    case $said in *"does not accept value '$d'"* | *"Unknown driver"* | *"not whitelisted"*) echo "$d" ;; esac
done
"""


@dataclass(frozen=True)
class Equipment:
    """`daemon`: the version of the storage daemon; drivers that are missing in it and in QEMU; CPU models that run."""

    daemon: Version
    daemon_lacks: tuple[str, ...]
    qemu_lacks: tuple[str, ...]
    cpus: frozenset[str]


async def look(host: Host, accel: str) -> Equipment:
    """Both programs must be there. `accel`: "kvm" or "tcg", with which CPUs are to run."""
    told, daemon_lacks, formats, cpus = await asyncio.gather(
        host.attempt((DAEMON, "--version")),
        shell(host, _DRIVERS, DAEMON, *DAEMON_DRIVERS),
        host.attempt(("timeout", SECONDS, BINARY, "-drive", "format=help")),
        _cpus(host, accel),
    )
    known = frozenset(formats.text.partition(":")[2].partition("\n")[0].split())
    lacks = tuple(name for name in QEMU_DRIVERS if name not in known)
    return Equipment(_version(told.text), tuple(daemon_lacks.text.split()), lacks, cpus)


def _version(told: str) -> Version:
    found = re.search(r"version (\d+)\.(\d+)(?:\.(\d+))?", told)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else (0, 0, 0)


async def _cpus(host: Host, accel: str) -> frozenset[str]:
    """The models of which this host's CPU, or TCG, lacks nothing."""
    said = "".join(
        json.dumps({"execute": word}) for word in ("qmp_capabilities", "query-cpu-definitions", "quit")
    ).encode()
    argv = (BINARY, "-machine", f"none,accel={accel}", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio")
    done = await host.attempt(("timeout", SECONDS, *argv), said)
    rows = [row for line in done.text.splitlines() for row in _returned(line)]
    return frozenset(row["name"] for row in rows if not row.get("unavailable-features"))


def _returned(line: str) -> list[dict[str, Any]]:
    try:
        reply = json.loads(line).get("return")
    except (ValueError, AttributeError):
        return []
    return reply if isinstance(reply, list) else []


def newest_common_cpu(*hosts: frozenset[str]) -> str | None:
    """The newest named model that all hosts have."""
    common = frozenset.intersection(*hosts) if hosts else frozenset()
    return next((name for name in reversed(GENERATIONS) if name in common), None)
