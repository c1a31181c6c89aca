"""The command lines of the path handlers of a device that looks shared, and of a QEMU that uses it. Pure."""

from __future__ import annotations

import json

from qemu_esd.graph import nodes
from qemu_esd.graph.device import Graph, Node, face
from qemu_esd.graph.device_guests import GO_ON
from qemu_esd.graph.path_handler import launcher, listening
from qemu_esd.model import device
from qemu_esd.model.device import DeviceRecord, Seat
from qemu_esd.model.disk import TlsTcp

# A socket of the file system, made before QEMU is: so it belongs to whom it is for from the first moment on.
_LISTEN_UNIX = r"""
use strict; use Socket;
my ($path, $owner, @argv) = @ARGV;
$^F = 255;
umask 0177;
unlink $path;
socket(my $listener, PF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
bind($listener, pack_sockaddr_un($path)) or die "cannot listen on $path: $!\n";
if ($owner =~ /^(\d+):(\d+)$/) { chown($1, $2, $path) or die "cannot give $path to $owner: $!\n" }
listen($listener, 64) or die "cannot listen on $path: $!\n";
umask 0077;
my $number = fileno $listener;
s/^addr\.type=fd,addr\.str=LISTENER/addr.type=fd,addr.str=$number/ for @argv;
exec { $argv[0] } @argv or die "$argv[0]: $!\n";
"""

# What needs another host is opened when that one answers. `run` in the unit's folder says what is wanted, and `pid` who
# runs: a helper that has outlived either does nothing more. What is there already, of an earlier try, is fine.
#
# libvirt's QEMU has no patience with a path handler that is killed: its domain stands still, its guest sees no error.
# The next one tells it to go on, until for so many looks there was nobody to be told: by the first time it only
# connects. What another disk of it has stopped is not told so for ever.
_FACE = r"""
perl=$1 monitor=$2 commands=$3 socket=$4 go_on=$5
shift 5
was=$(cksum <run)
late() {
    [ -n "$commands" ] || exit
    while sleep 0.3 && [ "$(cksum <run)" = "$was" ] && [ "$(cat pid 2>/dev/null)" = $$ ]; do
        if perl -e "$perl" "$monitor" "$commands"; then exit; fi
        sleep 0.7
    done
}
tell() {
    calm=0 looks=0
    while [ $calm -lt 8 ] && [ $looks -lt 60 ] && sleep 1 && [ "$(cat pid 2>/dev/null)" = $$ ]; do
        looks=$((looks + 1))
        if perl -e "$go_on" "$socket"; then calm=$((calm + 1)); else calm=0; fi
    done
}
late &
if [ -e exit ]; then tell & fi
exec "$@"
"""

_TELL = r"""
use strict; use IO::Socket::UNIX; use IO::Select;
my ($path, $commands) = @ARGV;
my $qmp = IO::Socket::UNIX->new(Peer => $path) or exit 1;
my ($ready, $rest) = (IO::Select->new($qmp), "");
sub hear {
    while (1) {
        while ($rest =~ s/^(.*)\n//) { my $line = $1; return $line if $line =~ /"(QMP|return|error)"/; }
        exit 1 unless $ready->can_read(20) && sysread($qmp, $rest, 65536, length $rest);
    }
}
hear();
for my $command ('{"execute": "qmp_capabilities"}', split /\n/, $commands) {
    syswrite($qmp, "$command\n");
    my $said = hear();
    exit 1 if $said =~ /"error"/ && $said !~ /Duplicate node|already in use|already exists/;
}
"""


def face_argv(record: DeviceRecord, seat: Seat) -> tuple[str, ...]:
    """The command line of a face, to be run in its unit's folder."""
    graph, paths, suid = face(record, seat), seat.paths, record.suid
    words = ["perl", "-e", _LISTEN_UNIX, device.socket(paths, suid), record.owner, "qemu-storage-daemon"]
    monitors = [("control", device.monitor(paths, suid, "face")), ("late", device.monitor(paths, suid, "late"))]
    words += _daemon(graph, monitors, [nodes.tls_object(_own_key(seat, suid), "client")])
    words += ["--nbd-server", "addr.type=fd,addr.str=LISTENER,max-connections=100"]
    words += [word for export in graph.exports for word in ("--export", json.dumps(export))]
    helpers = (_TELL, monitors[1][1], _commands(graph), device.socket(paths, suid), GO_ON)
    return ("sh", "-c", _FACE, "esd-face", *helpers, *words)


def _commands(graph: Graph) -> str:
    adds = [{"execute": "blockdev-add", "arguments": node} for node in graph.late_nodes]
    shows = [{"execute": "block-export-add", "arguments": export} for export in graph.late_exports]
    return "\n".join(json.dumps(command) for command in (*adds, *shows))


def gate_argv(record: DeviceRecord, seat: Seat, graph: Graph) -> tuple[str, ...]:
    """The command line of a gate."""
    listen = _own_gate(seat, record.suid)
    words = [*launcher(listen), "qemu-storage-daemon"]
    words += _daemon(
        graph, [("control", device.monitor(seat.paths, record.suid, "gate"))], [_server(seat, record.suid)]
    )
    words += ["--nbd-server", listening(listen)]
    return (*words, *(word for export in graph.exports for word in ("--export", json.dumps(export))))


def _own_gate(seat: Seat, suid: str) -> TlsTcp:
    return TlsTcp(seat.site.address, seat.port, device.state_folder(seat.paths, suid))


_own_key = _own_gate


def _server(seat: Seat, suid: str) -> Node | None:
    return nodes.tls_object(_own_gate(seat, suid), "server")


def _daemon(graph: Graph, monitors: list[tuple[str, str]], credentials: list[Node | None]) -> list[str]:
    words: list[str] = []
    for id, path in monitors:
        words += ["--chardev", f"socket,id={id},path={path},server=on,wait=off", "--monitor", f"chardev={id}"]
    for object in credentials:
        words += ["--object", json.dumps(object)]
    for node in graph.nodes:
        words += ["--blockdev", json.dumps(node)]
    return words


def guest_words(record: DeviceRecord, seat: Seat) -> tuple[str, ...]:
    """The words of a bare QEMU for a disk on the device. A path handler that is started again is no error to it."""
    name = f"shared-{record.suid}"
    node = {
        "driver": "nbd",
        "node-name": name,
        "server": {"type": "unix", "path": device.socket(seat.paths, record.suid)},
        "export": record.suid,
        "reconnect-delay": nodes.RECONNECT_SECONDS,
        "discard": "unmap",
    }
    disk = {"driver": "virtio-blk-pci", "id": name, "drive": name, "serial": record.suid}
    errors = {"rerror": "stop", "werror": "stop"}
    return ("-blockdev", json.dumps(node), "-device", json.dumps({**disk, **errors}))
