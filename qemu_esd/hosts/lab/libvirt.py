"""The libvirtd of a lab host, or its virtqemud: its folders, its settings, its user.

It is the machine's program, and all else is the host's own: definitions, sockets, logs, what it has found out about
QEMU, and its UUID, by which libvirt knows one host from another. The machine's own libvirtd, if there is one, is
neither needed nor seen.
"""

from __future__ import annotations

from qemu_esd.hosts.lab.state import LabHost, write_file

# What the machine may have, in this order → where it listens. virtqemud is of those that have a daemon for each driver.
DAEMONS = {"libvirtd": "/run/libvirt/libvirt-sock", "virtqemud": "/run/libvirt/virtqemud-sock"}
# Folder of the host below its data folder on the machine → where the host sees it.
FOLDERS = {"libvirt-etc": "/etc/libvirt", "libvirt-state": "/var/lib/libvirt", "cache": "/var/cache"}
# As Debian's libvirt-daemon-system makes them: the driver for QEMU does not start without its user.
PASSWD = "libvirt-qemu:x:64055:64055:Libvirt Qemu:/var/lib/libvirt:/usr/sbin/nologin"
GROUP = "libvirt-qemu:x:64055:"
# The machine's firmware names the machine, and so it cannot tell its lab hosts apart.
_DAEMON_CONF = """\
host_uuid_source = "machine-id"
auth_unix_ro = "none"
auth_unix_rw = "none"
"""
# Without it a virsh of Debian's build looks for libvirtd alone.
_CLIENT_CONF = 'uri_default = "qemu:///system"\n'
# Root, because some machines have a /dev/kvm for root only: libvirt finds out with it what QEMU can do, then sees that
# its guests may not use it, and begins anew, ten times for each guest (measured: 20 s). Another user can be named per
# domain (<seclabel model="dac">). Security modules and control groups are the machine's; virtlogd would be one daemon
# more.
_QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
stdio_handler = "file"
"""


def write_settings(host: LabHost) -> None:
    """Where the daemon looks for them. Definitions of domains lie beside them, and stay."""
    etc = host.data / "libvirt-etc"
    for daemon in DAEMONS:
        write_file(etc / f"{daemon}.conf", _DAEMON_CONF)
    write_file(etc / "libvirt.conf", _CLIENT_CONF, 0o644)
    write_file(etc / "qemu.conf", _QEMU_CONF)
    (host.data / "libvirt-state" / "images").mkdir(parents=True, exist_ok=True)
