"""The lab's network, all of it inside namespaces of the lab.

The *switch* is a namespace with these bridges:

    esd0    10.213.0.1/24 and a port c<n> to the eth0 (10.213.0.<10+n>) of each host n. This is how the
            controller reaches the hosts. Its ports are isolated: host does not reach host through it.
    p1-2    one for each pair of hosts, with ports p1-2.1 and p1-2.2 to a device in either host ("to-hostB"
            in hostA). Each host has a route to the other's address over that device only.

So whatever happens to a pair's bridge or ports happens between these two hosts and to nobody else, in either
direction apart, out of the hosts' reach: bridge down is a cable that swallows everything in silence, since
the hosts' own devices, routes and neighbour entries (static) stay as they are; a queue on a port shapes
what goes to that port's host.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from itertools import combinations

from qemu_esd.errors import CommandFailedError
from qemu_esd.hosts.lab.process import SBIN, Process
from qemu_esd.hosts.lab.state import LabHost

SWITCH_ADDRESS = "10.213.0.1"
_SWITCH_MAC = "02:e5:d0:00:00:00"

# Names of namespaces in /proc → options of nsenter.
_NSENTER = {"net": "net", "mnt": "mount"}

Pair = tuple[LabHost, LabHost]


def bridge_name(one: LabHost, other: LabHost) -> str:
    low, high = sorted((one.number, other.number))
    return f"p{low}-{high}"


def port_name(to: LabHost, peer: LabHost) -> str:
    """The switch's port towards `to` of the pair `to` and `peer`."""
    return f"{bridge_name(to, peer)}.{to.number}"


def build_switch(switch: Process) -> None:
    run_ip(
        switch,
        [
            "link set dev lo up",
            # A named address: else a bridge takes another one when a port comes or goes, and all hosts, who
            # remember the former, are deaf for a quarter of a minute.
            f"link add name esd0 address {_SWITCH_MAC} type bridge",
            f"address add {SWITCH_ADDRESS}/24 dev esd0",
            "link set dev esd0 up",
        ],
    )


def plug(switch: Process, hosts: Sequence[LabHost], fresh: set[int]) -> None:
    """Connect the hosts whose number is in `fresh` with the switch and with each of `hosts`."""
    pairs = [pair for pair in combinations(hosts, 2) if {host.number for host in pair} & fresh]
    new = [host for host in hosts if host.number in fresh]
    # What an earlier life of a host, or of the switch, left at the other end of a cable goes first; the kernel
    # may be removing it right now.
    run_ip(switch, _unplug_lines(new, pairs), force=True)
    for host in hosts:
        run_ip(_init(host), _delete_lines(_devices(host, new, pairs)), force=True)
    run_ip(switch, [line for host in new for line in _controller_lines(host)])
    run_ip(switch, [line for one, other in pairs for line in _pair_lines(one, other)])
    for host in hosts:
        lines = _uplink_lines(host) if host in new else []
        run_ip(_init(host), [*lines, *(line for peer in _peers(host, pairs) for line in _peer_lines(host, peer))])


def run_ip(where: Process, lines: Iterable[str], force: bool = False) -> None:
    """Run `ip` commands in the network namespace of `where`; with `force`, go on after one that fails."""
    argv = ["ip", *(["-force"] if force else []), "-batch", "-"]
    done = run_inside(where, argv, "\n".join(lines) + "\n")
    if done.returncode != 0 and not force:
        # The reason stands before "Command failed -:LINE", and an error shows the last line.
        raise CommandFailedError(tuple(argv), done.returncode, "; ".join(done.stderr.split("\n")))


def run_inside(
    where: Process, argv: Sequence[str], stdin: str = "", *, spaces: Sequence[str] = ("net",)
) -> subprocess.CompletedProcess[str]:
    """Run a program of the machine in the network namespace of `where`, or in these of its namespaces."""
    enter = ("nsenter", *(f"--{_NSENTER[space]}=/proc/{where.pid}/ns/{space}" for space in spaces), "--")
    return subprocess.run([*enter, *argv], input=stdin, capture_output=True, text=True, check=False, env={"PATH": SBIN})


def _unplug_lines(hosts: Sequence[LabHost], pairs: Sequence[Pair]) -> list[str]:
    names = [f"c{host.number}" for host in hosts]
    for one, other in pairs:
        names += [port_name(one, other), port_name(other, one), bridge_name(one, other)]
    return _delete_lines(names)


def _devices(host: LabHost, new: Sequence[LabHost], pairs: Sequence[Pair]) -> list[str]:
    return [*(["eth0"] if host in new else []), *(_device(peer) for peer in _peers(host, pairs))]


def _peers(host: LabHost, pairs: Sequence[Pair]) -> list[LabHost]:
    return [one if other == host else other for one, other in pairs if host in (one, other)]


def _delete_lines(devices: Sequence[str]) -> list[str]:
    return [f"link delete dev {device}" for device in devices]


def _controller_lines(host: LabHost) -> list[str]:
    port = f"c{host.number}"
    return [
        f"link add name {port} type veth peer name eth0 address {_mac(host)} netns {_init(host).pid}",
        f"link set dev {port} master esd0",
        f"link set dev {port} type bridge_slave isolated on",
        f"link set dev {port} up",
    ]


def _pair_lines(one: LabHost, other: LabHost) -> list[str]:
    bridge = bridge_name(one, other)
    lines = [f"link add name {bridge} type bridge"]
    for host, peer in ((one, other), (other, one)):
        port, device = port_name(host, peer), _device(peer)
        lines += [
            f"link add name {port} type veth peer name {device} address {_mac(host, peer)} netns {_init(host).pid}",
            f"link set dev {port} master {bridge}",
            f"link set dev {port} up",
        ]
    return [*lines, f"link set dev {bridge} up"]


def _uplink_lines(host: LabHost) -> list[str]:
    return ["link set dev lo up", f"address add {host.address}/24 dev eth0", "link set dev eth0 up"]


def _peer_lines(host: LabHost, peer: LabHost) -> list[str]:
    device = _device(peer)
    return [
        f"link set dev {device} up",
        f"neighbour replace {peer.address} lladdr {_mac(peer, host)} dev {device} nud permanent",
        f"route replace {peer.address}/32 dev {device} src {host.address}",
    ]


def _device(peer: LabHost) -> str:
    return f"to-{peer.name}"


def _mac(host: LabHost, peer: LabHost | None = None) -> str:
    """The hardware address (a local one, made from the numbers) of the host's device to `peer`, or of its eth0."""
    return f"02:e5:d0:00:{host.number:02x}:{peer.number if peer else 0:02x}"


def _init(host: LabHost) -> Process:
    assert host.init is not None
    return host.init
