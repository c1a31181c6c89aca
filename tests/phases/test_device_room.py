"""Who waits for room, of what a host tells of guests that stand still."""

from __future__ import annotations

import json

from qemu_esd.phases.device_room import Waiting, found

SOCKET = "/run/qemu-esd/device/d1.sock"


def disks(status: str, file: str) -> str:
    return json.dumps(
        {"return": [{"io-status": status, "inserted": {"file": file}}, {"device": "cd", "locked": False}]}
    )


def test_only_a_full_disk_on_the_device() -> None:
    full, other = disks("nospace", f"nbd+unix:///d1?socket={SOCKET}"), disks("nospace", "/srv/a.qcow2")
    failed = disks("failed", f"nbd+unix:///d1?socket={SOCKET}")
    told = ["vm", "vm1", full, "vm", "vm2", other, "domain", "web1", full, "domain", "web2", failed, "vm", "vm3", ""]
    assert list(found("".join(f"{word}\0" for word in told), SOCKET)) == [Waiting("vm1", False), Waiting("web1", True)]
    assert list(found("", SOCKET)) == []
