"""How long a word takes from a host to the source of a disk and back, as the kernel has seen it on the link itself."""

from __future__ import annotations

import re

from qemu_esd.hosts.base import Host, run
from qemu_esd.model.disk import Link, UnixPath

# Through ssh nobody can tell: then it counts as a long way, which costs the guest time and not the move its speed.
LONG_WAY = 0.02
_LEAST = re.compile(r"\bminrtt:([\d.]+)")


async def seconds(host: Host, link: Link) -> float:
    """The shortest of all round trips since the link was made."""
    if isinstance(link.endpoint, UnixPath):
        return LONG_WAY
    to = ("dst", link.endpoint.address, "dport", "=", str(link.endpoint.port))
    return shortest((await run(host, ("ss", "-Htni", "state", "established", *to))).text)


def shortest(told: str) -> float:
    """Of what `ss` tells of connections (ms there)."""
    return min((float(found) / 1000 for found in _LEAST.findall(told)), default=LONG_WAY)
