"""The accelerator of a host: by a probe that really runs a guest, remembered until the host boots again."""

from __future__ import annotations

from qemu_esd.graph.accel import PROBE_CPU_SECONDS, PROBE_ROM, PROBE_SECONDS, probe_argv
from qemu_esd.graph.accel import choose as chosen
from qemu_esd.hosts import files
from qemu_esd.hosts.base import Host, shell
from qemu_esd.model.host import HostPaths

QEMU = "qemu-system-x86_64"

# Not by `exec`: a shell tells of a signal by its status, ssh may not.
_LIMITED = 'ulimit -t "$1"; shift; timeout -k 1 "$@"; exit $?'
_KEY = 'cat /proc/sys/kernel/random/boot_id; "$1" --version | head -n 1'


async def works(host: Host, paths: HostPaths) -> str:
    """The same, and nothing is left on the host: what is remembered, else a probe in a folder that goes again."""
    known = (await files.read(host, f"{paths.state}/accel") or b"").decode().partition("\n")
    if known[2] == (await shell(host, _KEY, QEMU)).text:
        return known[0]
    folder = (await shell(host, "mktemp -d /tmp/qemu-esd-probe-XXXXXX")).text.strip()
    try:
        return await _probe(host, f"{folder}/probe.rom")
    finally:
        await files.remove_tree(host, folder)


async def choose(host: Host, paths: HostPaths) -> str:
    """ "kvm" where a guest really runs with it, else "tcg"."""
    key = (await shell(host, _KEY, QEMU)).text
    path = f"{paths.state}/accel"
    known = (await files.read(host, path) or b"").decode().partition("\n")
    if known[2] == key:
        return known[0]
    accel = await _probe(host, f"{paths.state}/probe.rom")
    await files.write(host, path, f"{accel}\n{key}".encode())
    return accel


async def _probe(host: Host, rom: str) -> str:
    """A device node proves nothing: only a guest that comes to its end does."""
    if not await files.existing(host, "/dev/kvm"):
        return "tcg"
    await files.write(host, rom, PROBE_ROM)
    limits = (str(PROBE_CPU_SECONDS), str(PROBE_SECONDS))
    done = await host.attempt(("sh", "-c", _LIMITED, "sh", *limits, *probe_argv(QEMU, rom)))
    await files.remove(host, rom)
    # timeout(1) ends with 124 when it had to kill, and as what it runs where the kernel did.
    return chosen(None if done.status in (124, 137) else done.status)
