"""Which monitor of a running QEMU is ours to use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qemu_esd.errors import RefusedError
from qemu_esd.hypervisors.bare import monitor_of, observer_of
from qemu_esd.model.host import HostPaths
from qemu_esd.model.vm import QemuProcess

FROM_LIBVIRT = Path(__file__).parents[2] / "fixtures/cmdline/06-libvirt.json"
SECOND = ("-qmp", "unix:/run/mine.qmp,server=on,wait=off")


@pytest.mark.parametrize("extra", [(), SECOND], ids=["as libvirt made it", "with a monitor of the user's own"])
@pytest.mark.parametrize("choose", [monitor_of, observer_of])
def test_a_domain_is_left_to_libvirt(choose: type, extra: tuple[str, ...]) -> None:
    argv = (*json.loads(FROM_LIBVIRT.read_text())["argv"], *extra)
    with pytest.raises(RefusedError, match="hostA: web1 is a domain of libvirt") as caught:
        choose("hostA", QemuProcess(1, "web1", argv, "/"), HostPaths("/var/lib/qemu-esd", "/run/qemu-esd"))
    assert caught.value.hint == "use libvirt's own tools: virsh, virt-manager"
