"""Two lab hosts of our own for a benchmark, the guest's image, and what the machine is like."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from images.build import GuestImage, build
from qemu_esd.errors import RefusedError
from qemu_esd.hosts import lab
from tests.integration.support.machine import STATE, Machine


@dataclass(frozen=True)
class Stand:
    """Hosts `a` and `b`, and the image of the guest."""

    a: Machine
    b: Machine
    image: GuestImage

    def link_bytes(self) -> int:
        """Bytes that went over the link, both ways, since the lab is up."""
        return self.a.sent_bytes(self.b) + self.b.sent_bytes(self.a)

    def sweep(self) -> None:
        for machine in (self.a, self.b):
            machine.sweep()

    def accel(self) -> str:
        """What guests run with; known once one has run."""
        path = self.a.path(f"{STATE}/accel")
        return path.read_text().split("\n")[0] if path.exists() else "unknown"


@asynccontextmanager
async def open_stand(rate: int | None, *, libvirt: bool = False) -> AsyncIterator[Stand]:
    """A lab that is ours alone, taken down whatever happens. `rate` limits its link (bytes/s each way).

    With `libvirt` its hosts have one, and must not be swept: that would end it.
    """
    os.environ.setdefault("QEMU_ESD_LAB", f"/run/esd-bench-{os.getpid()}")
    if lab.status().state is not lab.LabState.NONE:
        raise RefusedError("a lab is there, and a benchmark would clear its hosts", hint="qemu-esd lab down")
    with tempfile.TemporaryDirectory(prefix="esd-bench-") as controller:
        os.environ["QEMU_ESD_STATE"] = controller
        try:
            one, other = (await lab.up(2, libvirt=libvirt)).lab.hosts
            await lab.set_link(replace(await lab.link_between(one.name, other.name), rate=rate))
            yield Stand(Machine(one), Machine(other), build())
        finally:
            await lab.down()


def machine_facts() -> dict[str, Any]:
    """What a reader has to know to judge the figures."""
    said = subprocess.run(("qemu-system-x86_64", "--version"), capture_output=True, text=True, check=True).stdout
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "kernel": platform.release(),
        "qemu": said.splitlines()[0],
        "load_before": round(os.getloadavg()[0], 2),
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
