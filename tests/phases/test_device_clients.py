"""Who is connected to a socket, of what `ss -Hxpn state established` tells."""

from __future__ import annotations

from qemu_esd.phases.device_clients import Client, found

SOCKET = "/run/qemu-esd/device/d1.sock"
TOLD = """\
u_str 0      0      /run/qemu-esd/device/d1.sock 101            * 102  users:(("qemu-storage-da",pid=7,fd=14))
u_str 0      0                                 * 102            * 101  users:(("qemu-system-x86",pid=11,fd=9))
u_str 0      0      /run/qemu-esd/device/d1.sock 103            * 104  users:(("qemu-storage-da",pid=7,fd=15))
u_str 0      0                                 * 104            * 103  users:(("qemu-storage-da",pid=8,fd=9))
u_str 0      0      /run/qemu-esd/device/d2.sock 105            * 106  users:(("qemu-storage-da",pid=9,fd=15))
u_str 0      0                                 * 106            * 105  users:(("qemu-system-x86",pid=12,fd=9))
u_dgr 0      0                                 * 107            * 0
"""


def test_guests_and_none_of_our_daemons() -> None:
    assert found(TOLD, SOCKET) == [Client("qemu-system-x86", 11)]


def test_another_socket() -> None:
    assert found(TOLD, "/run/qemu-esd/device/d3.sock") == []
