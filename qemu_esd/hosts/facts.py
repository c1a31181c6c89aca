"""What a host is and has, looked up in one round trip, and once for each time that it is opened."""

from __future__ import annotations

import re
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from qemu_esd.errors import RefusedError
from qemu_esd.hosts.base import Host, run, shell
from qemu_esd.model.host import HostPaths

PROGRAMS = ("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img", "ip", "ss", "setsid", "timeout", "ssh", "perl")

_LOOK = r"""
echo "uid=$(id -u)"
echo "home=$HOME"
echo "runtime=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"
for p; do if command -v -- "$p" >/dev/null 2>&1; then echo "program=$p"; fi; done
"""


@dataclass(frozen=True)
class HostFacts:
    """Folders of ours on a host, and which of PROGRAMS it has."""

    paths: HostPaths
    programs: frozenset[str]


_SEEN: WeakKeyDictionary[Host, HostFacts] = WeakKeyDictionary()


async def look(host: Host) -> HostFacts:
    """Our folders are those of the system for root, and those of the user for anybody else."""
    if host not in _SEEN:
        _SEEN[host] = await _ask(host)
    return _SEEN[host]


async def _ask(host: Host) -> HostFacts:
    done = await shell(host, _LOOK, *PROGRAMS)
    pairs = [line.partition("=")[::2] for line in done.text.splitlines()]
    facts = dict(pairs)
    programs = frozenset(value for key, value in pairs if key == "program")
    return HostFacts(_paths(facts), programs)


def _paths(facts: dict[str, str]) -> HostPaths:
    if facts["uid"] == "0":
        return HostPaths("/var/lib/qemu-esd", "/run/qemu-esd")
    return HostPaths(f"{facts['home']}/.local/state/qemu-esd", f"{facts['runtime']}/qemu-esd")


async def address_towards(host: Host, peer: str) -> str:
    """The address of `host` on its way to `peer`. Raises RefusedError where there is none."""
    done = await host.attempt(("ip", "-o", "route", "get", peer))
    match = re.search(r"\bsrc (\S+)", done.text)
    if match is None:
        raise RefusedError(f"it has no way to {peer}", host=host.name, hint=f"mend the route: ip route get {peer}")
    return match[1]


async def ports_in_use(host: Host) -> frozenset[int]:
    """TCP ports that somebody listens on."""
    done = await run(host, ("ss", "-Htln"))
    return frozenset(int(line.split()[3].rsplit(":", 1)[1]) for line in done.text.splitlines())


async def available_memory(host: Host) -> int:
    """Bytes that programs may have more, as the kernel reckons."""
    done = await shell(host, r"sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo")
    return int(done.text) << 10
