"""How far it is from one host to another, and how fast: measured for a moment, between the hosts themselves.

perl on one listens on one address for one connection, perl on the other connects; neither lives longer than a few
seconds, and what is sent are zeroes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from qemu_esd.hosts.base import Host
from qemu_esd.log import timed

# Long enough for TCP to find its rate, short enough for a dry run.
SEND_SECONDS = 0.5
PINGS = 20
# All of it, with the connection.
LIFE_SECONDS = 8
# The listener may not be there yet when we come for the first time.
CONNECT_SECONDS = 3

# Echoes each byte until an "s" comes, then sends for as long as it was told.
_LISTEN = r"""
use strict; use IO::Socket::IP; use Socket qw(IPPROTO_TCP TCP_NODELAY); use Time::HiRes qw(time);
my ($address, $port, $seconds, $life) = @ARGV;
alarm $life; $SIG{PIPE} = sub { exit 0 };
my $door = IO::Socket::IP->new(LocalHost => $address, LocalPort => $port, Listen => 1, ReuseAddr => 1) or die "$@\n";
my $peer = $door->accept or die "$!\n"; close $door;
setsockopt($peer, IPPROTO_TCP, TCP_NODELAY, 1);
while (sysread($peer, my $byte, 1)) {
    if ($byte ne "s") { syswrite($peer, $byte); next }
    my ($end, $zeroes) = (time + $seconds, "\0" x 262144);
    while (time < $end) { syswrite($peer, $zeroes) or last }
    last;
}
"""
# Prints the shortest round trip, then bytes and seconds.
_CONNECT = r"""
use strict; use IO::Socket::IP; use Socket qw(IPPROTO_TCP TCP_NODELAY); use Time::HiRes qw(time sleep);
my ($address, $port, $pings, $patience, $life) = @ARGV;
alarm $life;
my ($peer, $until) = (undef, time + $patience);
until ($peer = IO::Socket::IP->new(PeerHost => $address, PeerPort => $port, Timeout => $patience)) {
    die "$@\n" if time > $until; sleep 0.02;
}
setsockopt($peer, IPPROTO_TCP, TCP_NODELAY, 1);
my $least = 1e9;
for (1 .. $pings) {
    my $began = time; syswrite($peer, "p"); sysread($peer, my $byte, 1) or die "cut off\n";
    my $took = time - $began; $least = $took if $took < $least;
}
syswrite($peer, "s");
my ($bytes, $began, $ended) = (0, time, time);
while (my $got = sysread($peer, my $data, 1048576)) { $bytes += $got; $ended = time }
printf "%.6f %d %.6f\n", $least, $bytes, $ended - $began;
"""


@dataclass(frozen=True)
class Wire:
    """The way from one host to another: bytes per second, and the shortest round trip in seconds."""

    rate: int
    round_trip: float


@dataclass(frozen=True)
class Closed:
    """Nothing came through; `why` in the words of the host that tried to connect, or of the one that listened."""

    why: str


async def measure(sender: Host, address: str, port: int, receiver: Host) -> Wire | Closed:
    """Send from `sender`, which listens on `address` and `port`, to `receiver`, for half a second."""
    listen = ("perl", "-e", _LISTEN, address, str(port), str(SEND_SECONDS), str(LIFE_SECONDS))
    connect = ("perl", "-e", _CONNECT, address, str(port), str(PINGS), str(CONNECT_SECONDS), str(LIFE_SECONDS))
    with timed("measure the link", host=sender.name, peer=receiver.name):
        ends = [asyncio.ensure_future(host.attempt(argv)) for host, argv in ((sender, listen), (receiver, connect))]
        try:
            # Where one of them fails, the other one would wait in vain.
            for end in asyncio.as_completed(ends):
                done = await end
                if done.status != 0:
                    return Closed(done.stderr.strip().partition("\n")[0] or "no answer")
        finally:
            # Left alone they end by their alarms.
            for each in ends:
                each.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
    least, count, seconds = ends[1].result().text.split()
    return Wire(int(int(count) / max(float(seconds), 1e-6)), float(least))
