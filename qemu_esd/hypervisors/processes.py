"""Running QEMUs on a host, found by their command lines. Nothing of ours needs to be there."""

from __future__ import annotations

import base64
from collections.abc import Iterable

from qemu_esd.errors import RefusedError
from qemu_esd.hosts.base import Host, shell
from qemu_esd.hypervisors.cmdline.reader import read
from qemu_esd.model.vm import QemuProcess

# A QEMU in another PID namespace lives on another host (a container, a lab host): its paths and sockets are not ours.
_FIND = r"""
own=$(readlink /proc/self/ns/pid)
ls -l /proc/[0-9]*/exe 2>/dev/null | sed -n 's,.* /proc/\([0-9]*\)/exe -> .*/qemu-\(system-\|kvm\).*,\1,p' |
while read -r pid; do
    [ "$(readlink "/proc/$pid/ns/pid")" = "$own" ] || continue
    printf '%s %s %s\n' "$pid" "$(readlink "/proc/$pid/cwd" | base64 -w0)" "$(base64 -w0 <"/proc/$pid/cmdline")"
done
"""


async def find_all(host: Host) -> tuple[QemuProcess, ...]:
    """Every QEMU system emulator that runs on `host`."""
    done = await shell(host, _FIND)
    found = (_process(line.split(" ")) for line in done.text.splitlines())
    return tuple(process for process in found if process is not None)


def _process(words: list[str]) -> QemuProcess | None:
    pid, cwd, line = words
    argv = tuple(base64.b64decode(line).decode(errors="surrogateescape").split("\0")[:-1])
    if not argv:
        return None
    try:
        name = read(argv).name or ""
    except RefusedError:
        name = ""
    return QemuProcess(int(pid), name, argv, base64.b64decode(cwd).decode(errors="replace").rstrip("\n"))


async def find(host: Host, name: str) -> QemuProcess | None:
    """The QEMU called `name`. Raises RefusedError if two are: they cannot be told apart."""
    return named(await find_all(host), name, host.name)


def named(running: Iterable[QemuProcess], name: str, host: str) -> QemuProcess | None:
    """The one called `name` of the QEMUs that run on `host`. Raises RefusedError as `find` does."""
    found = [process for process in running if process.name == name]
    if len(found) > 1:
        pids = ", ".join(str(process.pid) for process in found)
        raise RefusedError(
            f"several QEMUs are called {name} (pids {pids})", host=host, hint="end or rename all but one"
        )
    return found[0] if found else None
