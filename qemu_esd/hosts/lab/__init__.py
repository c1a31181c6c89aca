"""The lab: two (or N) real hosts on one machine, made of namespaces, each with a real sshd.

    built = await lab.up(2)            hostA, hostB …: network, mount, UTS, IPC and PID namespace, own disk folders
    host = lab.find("hostA")           one file read
    async with lab.connect(host) as h: a Host; or open_target(name, host.ssh_target(), lab.open_socket(host))
    await lab.set_link(replace(await lab.link_between("hostA", "hostB"), up=False))
    built = await lab.up(2, libvirt=True)            with a libvirtd of its own on each
    lab.status()
    await lab.down()                   leaves nothing

Where to read what: init.py (what a host sees), net.py (how hosts are connected), state.py (folders, lab.json,
lock), process.py and build.py (why a kill at any moment is harmless), teardown.py (what is removed, and when),
libvirt.py (what a libvirtd is told).
Nothing is ever added to the machine's own network or mount namespace.

A host is as real as namespaces make it: it shares the machine's kernel, clock, devices and programs. Outside
the folders that init.py lists it sees, and writes to, the files of the machine.
"""

from qemu_esd.hosts.lab.build import Built, up
from qemu_esd.hosts.lab.connect import connect, open_socket
from qemu_esd.hosts.lab.links import Link, link_between, set_link
from qemu_esd.hosts.lab.observe import HostState, HostStatus, LabState, LabStatus, status
from qemu_esd.hosts.lab.state import Lab, LabHost, find
from qemu_esd.hosts.lab.teardown import Removed, down

__all__ = [
    "Built",
    "HostState",
    "HostStatus",
    "Lab",
    "LabHost",
    "LabState",
    "LabStatus",
    "Link",
    "Removed",
    "connect",
    "down",
    "find",
    "link_between",
    "open_socket",
    "set_link",
    "status",
    "up",
]
