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
# As many as there is time for.
PINGS, PING_SECONDS = 20, 1.0
# For the other end to come, and then for all the rest: nothing of it lives longer, whatever becomes of us.
WAIT_SECONDS, LIFE_SECONDS = 3, 5

# Less than what anything else has to say.
NO_ANSWER = "no answer"
_HEAD = r"""
use strict; use IO::Socket::IP; use Socket qw(IPPROTO_TCP TCP_NODELAY); use Time::HiRes qw(time sleep);
$SIG{ALRM} = sub { die "no answer\n" };
"""
# Echoes each byte until an "s" comes, then sends for as long as it was told.
_LISTEN = (
    _HEAD
    + r"""
my ($address, $port, $wait, $life, $seconds) = @ARGV;
alarm $wait + 1; $SIG{PIPE} = sub { exit 0 };
my $door = IO::Socket::IP->new(LocalHost => $address, LocalPort => $port, Listen => 1, ReuseAddr => 1) or die "$@\n";
my $peer = $door->accept or die "$!\n"; close $door;
alarm $life; setsockopt($peer, IPPROTO_TCP, TCP_NODELAY, 1);
while (sysread($peer, my $byte, 1)) {
    if ($byte ne "s") { syswrite($peer, $byte); next }
    my ($end, $zeroes) = (time + $seconds, "\0" x 262144);
    while (time < $end) { syswrite($peer, $zeroes) or last }
    last;
}
"""
)
# Prints the shortest round trip, then bytes and seconds.
_CONNECT = (
    _HEAD
    + r"""
my ($address, $port, $wait, $life, $pings, $patience) = @ARGV;
alarm $wait;
my $peer;
until ($peer = IO::Socket::IP->new(PeerHost => $address, PeerPort => $port, Timeout => $wait)) {
    my $why = $@; $SIG{ALRM} = sub { die "$why\n" }; sleep 0.02;
}
setsockopt($peer, IPPROTO_TCP, TCP_NODELAY, 1);
my ($least, $until) = (1e9, time + $patience);
for (1 .. $pings) {
    my $began = time; syswrite($peer, "p"); sysread($peer, my $byte, 1) or die "cut off\n";
    alarm $life;
    my $took = time - $began; $least = $took if $took < $least;
    last if time > $until;
}
syswrite($peer, "s");
my ($bytes, $began, $ended) = (0, time, time);
while (my $got = sysread($peer, my $data, 1048576)) { $bytes += $got; $ended = time }
printf "%.6f %d %.6f\n", $least, $bytes, $ended - $began;
"""
)


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
    ends = (address, str(port), str(WAIT_SECONDS), str(LIFE_SECONDS))
    listen = ("perl", "-e", _LISTEN, *ends, str(SEND_SECONDS))
    connect = ("perl", "-e", _CONNECT, *ends, str(PINGS), str(PING_SECONDS))
    with timed("measure the link", host=sender.name, peer=receiver.name):
        # Both, also where one fails at once: nothing of it is to be there when we have gone.
        spoke, heard = await asyncio.gather(sender.attempt(listen), receiver.attempt(connect))
    if spoke.status != 0 or heard.status != 0:
        told = (one.stderr.strip().partition("\n")[0] for one in (spoke, heard))
        return Closed(next((why for why in told if why not in ("", NO_ANSWER)), NO_ANSWER))
    least, count, seconds = heard.text.split()
    return Wire(int(int(count) / max(float(seconds), 1e-6)), float(least))
