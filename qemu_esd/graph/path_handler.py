"""The command lines and nodes of a path handler (qemu-storage-daemon) in its two stages.

proxy   target ──TLS──▶ export ▶ served (raw) ▶ NBD client ──unix──▶ source QEMU
image   target ──TLS──▶ export ▶ served (raw) [▶ what lets nobody read bad sectors] ▶ quorum of one ▶ image, fenced
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from qemu_esd.graph import bad_sectors, image_guard, names, nodes
from qemu_esd.model.disk import Chain, Endpoint, Link, PlainTcp, TlsTcp, UnixPath, link_of
from qemu_esd.model.record import LinkMember

Node = dict[str, Any]


def served(member: LinkMember, below: str) -> Node:
    """The exported node over `below`; with its node-name it is also the argument of a reopen."""
    return {
        "driver": "raw",
        "node-name": names.served(member.suid),
        "file": below,
        "read-only": not member.writable,
    }


def proxy(member: LinkMember, source_socket: str) -> Node:
    """The NBD client of the source QEMU, which exports each device under its SUID."""
    return nodes.link(names.proxy(member.suid), Link(UnixPath(source_socket), member.suid))


def taken(member: LinkMember) -> tuple[Node, ...]:
    """The device's chain as the path handler opens it after the switchover, bottom first."""
    if member.writable:
        return nodes.fenced(names.image(member.suid), member.chain, read_only=False)
    return bad_sectors.held(member)


def proxy_argv(
    members: Iterable[tuple[LinkMember, Chain]], listen: Endpoint, monitor: str, source_socket: str
) -> tuple[str, ...]:
    """The path handler before the switchover: it asks the source QEMU.

    Each member with its chain as it will be when its image has been put aside.
    """
    both = tuple(members)
    rows = [(member, (proxy(member, source_socket),), names.proxy(member.suid)) for member, _ in both]
    return image_guard.guarded(bad_sectors.watched(both, _errors(monitor), _argv(rows, listen, monitor)))


def image_argv(members: Iterable[LinkMember], listen: Endpoint, monitor: str) -> tuple[str, ...]:
    """The path handler after the handover: it holds the images itself. This is what a restart runs."""
    rows = [(member, taken(member), names.image(member.suid)) for member in members]
    both = [(member, member.chain) for member, _, _ in rows]
    return image_guard.guarded(bad_sectors.watched(both, _errors(monitor), _argv(rows, listen, monitor)))


def _errors(monitor: str) -> str:
    """A monitor of its own for whoever listens to errors: one serves one client at a time."""
    return f"{monitor}-errors"


def observer(monitor: str) -> str:
    """And one for whoever only looks."""
    return f"{monitor}-observe"


# QEMU below 8.1 leaves Nagle's algorithm on: with TLS most answers then wait 40 ms for a delayed ACK. A socket
# that is accepted inherits the option, so we make the listening one, and QEMU finds it among its open files.
_LISTEN = r"""
use strict; use Socket qw(:DEFAULT :addrinfo IPPROTO_TCP TCP_NODELAY);
my ($host, $port, @argv) = @ARGV;
my ($error, $at) = getaddrinfo($host, $port, {flags => AI_NUMERICHOST, socktype => SOCK_STREAM});
die "$host: $error\n" if $error;
$^F = 255;
socket(my $listener, $at->{family}, SOCK_STREAM, 0) or die "socket: $!\n";
setsockopt($listener, SOL_SOCKET, SO_REUSEADDR, 1);
setsockopt($listener, IPPROTO_TCP, TCP_NODELAY, 1);
bind($listener, $at->{addr}) or die "cannot listen on $host port $port: $!\n";
listen($listener, 16) or die "cannot listen on $host port $port: $!\n";
my $number = fileno $listener;
s/^addr\.type=fd,addr\.str=LISTENER/addr.type=fd,addr.str=$number/ for @argv;
exec { $argv[0] } @argv or die "$argv[0]: $!\n";
"""


def _argv(rows: Sequence[tuple[LinkMember, tuple[Node, ...], str]], listen: Endpoint, monitor: str) -> tuple[str, ...]:
    words = [*launcher(listen), "qemu-storage-daemon"]
    for id, path in (("control", monitor), ("errors", _errors(monitor)), ("observe", observer(monitor))):
        words += ["--chardev", f"socket,id={id},path={_option(path)},server=on,wait=off", "--monitor", f"chardev={id}"]
    for credentials in _credentials([member for member, _, _ in rows], listen):
        words += ["--object", json.dumps(credentials)]
    for member, below, name in rows:
        for node in (*below, served(member, name)):
            words += ["--blockdev", json.dumps(node)]
    words += ["--nbd-server", listening(listen)]
    for member, _, _ in rows:
        words += ["--export", json.dumps(export(member))]
    return tuple(words)


def _credentials(members: list[LinkMember], listen: Endpoint) -> list[Node]:
    # A member whose own data is partly further upstream reads it with the key of that earlier migration.
    upstream = [link.endpoint for member in members if (link := link_of(member.chain))]
    objects = [nodes.tls_object(listen, "server"), *(nodes.tls_object(endpoint, "client") for endpoint in upstream)]
    return list({node["id"]: node for node in objects if node}.values())


def launcher(endpoint: Endpoint) -> list[str]:
    match endpoint:
        case TlsTcp(address, port) | PlainTcp(address, port):
            return ["perl", "-e", _LISTEN, address, str(port)]
        case UnixPath():
            return []


# Whoever shows no key is put out after ten seconds, and until then must not keep the target from its place.
_CONNECTIONS = 500


def listening(endpoint: Endpoint) -> str:
    limit = f"max-connections={_CONNECTIONS}"
    match endpoint:
        case TlsTcp():
            creds = names.credentials(nodes.migration_of(endpoint))
            return f"addr.type=fd,addr.str=LISTENER,tls-creds={creds},{limit}"
        case PlainTcp():
            return f"addr.type=fd,addr.str=LISTENER,{limit}"
        case UnixPath(path):
            return f"addr.type=unix,addr.path={_option(path)},{limit}"


def _option(value: str) -> str:
    """A value in a list of options: a comma in it is doubled."""
    return value.replace(",", ",,")


def export(member: LinkMember) -> Node:
    """The export of a served device under its random name.

    Writes are through to the disk: after a kill the path handler is started again and the guest is not told, so nothing
    that was acknowledged may be only in the cache of a qcow2's metadata.
    """
    return {
        "type": "nbd",
        "id": names.served(member.suid),
        "node-name": names.served(member.suid),
        "name": member.export,
        "writable": member.writable,
        "writethrough": member.writable,
    }
