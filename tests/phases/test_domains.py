"""What is said beforehand of a domain that is to move."""

from __future__ import annotations

from typing import cast

import pytest

from qemu_esd import sharing
from qemu_esd.hypervisors.libvirt.connection import Connection
from qemu_esd.hypervisors.libvirt.domain import Configuration, Domain, DomainDisk
from qemu_esd.model.plan import DomainTarget
from qemu_esd.model.policy import ReadErrors
from qemu_esd.phases.domains import DomainView, carried


@pytest.mark.parametrize(
    ("model", "told"), [("apparmor", "/run/qemu-esd/guest/*/* rw,"), ("selinux", "no socket in /run/qemu-esd/guest")]
)
def test_a_confined_one_needs_leave_to_use_our_sockets(model: str, told: str) -> None:
    xml = Configuration("web1", "uuid", "pc-q35-7.2", (), (), confined_by=(model,))
    view = DomainView(
        Domain(xml, "running", True, 0, 0), DomainTarget(True, "0:0", "0:0", ReadErrors.STOP), (), (True, True), True
    )
    (remark,) = carried(view).remarks
    assert (model in remark, "was not tried" in remark, told in remark) == (True, True, True)


@pytest.mark.parametrize(
    ("model", "told"), [("apparmor", "/run/qemu-esd/device/* rw,"), ("selinux", "no socket in /run/qemu-esd/device")]
)
def test_one_that_is_shared_does_too(model: str, told: str) -> None:
    xml = Configuration("web1", "uuid", "pc-q35-7.2", (), (), confined_by=(model,))
    disk = DomainDisk("vda", "virtio", "disk", ())
    target = sharing.Target(cast(Connection, None), "hostA", Domain(xml, "running", True, 0, 0), disk, "d1", "")
    (remark,) = sharing.remarks(target)
    assert (model in remark, "was not tried" in remark, told in remark) == (True, True, True)
