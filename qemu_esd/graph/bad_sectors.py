"""A path handler's answer to sectors that cannot be read: an error for them, and nothing but them.

QEMU's NBD server hangs up on a client whose read fails half way (all versions up to 10.2); the client comes back and
asks again, for ever, and nobody else's reads get through in between. Only where it cannot tell whether a range is a
hole it answers with an error. So a process beside the path handler hears from the node above each image (a quorum of
one, because that tells which sectors it could not read), finds out which of them are bad, and puts a node on top that
cannot tell whether those are holes. It tries them again now and then, and takes away what has been mended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from qemu_esd.graph import names, nodes
from qemu_esd.model.disk import Chain, images, link_of
from qemu_esd.model.record import LinkMember

Node = dict[str, Any]

# What was bad is tried again after so many seconds: a disk may be busy for seconds with a sector that it cannot read.
AGAIN_SECONDS = 30

# Words: the monitor, seconds, how many devices, for each its words (see `_about`), then the path handler's own words.
# It ends with the path handler. A path handler that is started again begins with no sector known to be bad.
_WATCHER = r"""
use strict; use IO::Socket::UNIX; use IO::Select;
my ($monitor, $seconds, $count, @daemon) = @ARGV;
my %device = map { my ($held, @about) = splice @daemon, 0, 6; ($held, \@about) } 1 .. $count;
my $path_handler = $$;
if (fork // die "fork: $!\n") { exec { $daemon[0] } @daemon or die "$daemon[0]: $!\n" }

my $qmp;
until ($qmp = IO::Socket::UNIX->new(Peer => $monitor)) {
    exit 0 if getppid() != $path_handler;
    select undef, undef, undef, 0.1;
}
my ($heard, @events, %bad, %top) = ("");

# The next line from the monitor, "" if none comes for so long.
sub line {
    my $end;
    while (($end = index $heard, "\n") < 0) {
        return "" unless IO::Select->new($qmp)->can_read($_[0]);
        sysread($qmp, $heard, 65536, length $heard) or exit 0;
    }
    return substr $heard, 0, $end + 1, "";
}

sub ask {
    syswrite $qmp, "$_[0]\n";
    while (1) {
        my $line = line();
        return $line =~ /^\{"return"/ if $line =~ /^\{"(return|error)"/;
        push @events, $line;
    }
}

# Those of the pieces (each by its first sector) of so many sectors that cannot be read; all of them if nobody can try.
sub failing {
    my ($image, $sectors, @pieces) = @_;
    return @pieces unless defined $image;
    my (%fine, @left);
    @left = @pieces;
    while (my @some = splice @left, 0, 500) {
        open my $io, "-|", qw(qemu-io -r -U), (map { ("-c", "read " . 512 * $_ . " " . 512 * $sectors) } @some), $image
            or die "qemu-io: $!\n";
        while (<$io>) { $fine{$1 / 512} = 1 if m{^read \d+/\d+ bytes at offset (\d+)} }
        close $io;
    }
    return grep { !$fine{$_} } @pieces;
}

sub opens {
    return system("sh", "-c", 'exec qemu-io -r -U -c length "$1" >/dev/null 2>&1', "sh", $_[0]) == 0;
}

# Try what is known to be bad, and so many sectors from the first on, and let no read come to what is bad now.
sub look_at {
    my ($held, $first, $sectors) = @_;
    my ($image, $served, $node, @chains) = @{$device{$held}};
    my ($chain) = grep { $_ ne "" && opens($_) } @chains;
    my @pieces = failing($chain, 128, map { $first + 128 * $_ } 0 .. ($sectors - 1) / 128);
    my @suspects = grep { $_ < $first + $sectors } map { my $piece = $_; map { $piece + $_ } 0 .. 127 } @pieces;
    # Where nobody can try, the guest does: what was bad is let through until it fails again.
    push @suspects, keys %{$bad{$held}} if defined $chain;
    my %now = map { $_ => 1 } failing($chain, 1, @suspects);
    my @now = sort { $a <=> $b } keys %now;
    return if join(" ", @now) eq join(" ", sort { $a <=> $b } keys %{$bad{$held}});
    print STDERR scalar(@now), " sectors of $held cannot be read", @now ? ", the first is $now[0]\n" : " any more\n";
    my ($old, $below) = ($top{$held}, $image);
    if (@now) {
        $below = $node . (($old // "") eq "${node}0" ? 1 : 0);
        my $rules = join ",", map { qq({"event":"none","iotype":"block-status","errno":5,"sector":$_}) } @now;
        ask(qq({"execute":"blockdev-add","arguments":{"driver":"blkdebug","node-name":"$below","image":"$image",)
            . qq("read-only":true,"inject-error":[$rules]}})) or return;
    }
    ask(qq({"execute":"blockdev-reopen","arguments":{"options":[{"driver":"raw","node-name":"$served",)
        . qq("file":"$below","read-only":true}]}})) or return;
    ask(qq({"execute":"blockdev-del","arguments":{"node-name":"$old"}})) if $old;
    ($bad{$held}, $top{$held}) = (\%now, @now ? $below : undef);
}

line();
ask('{"execute":"qmp_capabilities"}');
while (1) {
    my $line = @events ? shift @events : line((grep { $_ } values %top) ? $seconds : undef);
    if ($line eq "") { look_at($_, 0, 0) for grep { $top{$_} } keys %top }
    next unless $line =~ /"QUORUM_REPORT_BAD"/ && $line =~ /"type": "read"/;
    my ($held) = $line =~ /"node-name": "([^"]+)"/;
    my ($first) = $line =~ /"sector-num": (\d+)/;
    my ($sectors) = $line =~ /"sectors-count": (\d+)/;
    look_at($held, $first, $sectors) if $device{$held};
}
"""


def held(member: LinkMember) -> tuple[Node, ...]:
    """The device's chain, bottom first, under a node that says what it could not read. Its name is `names.image`."""
    below = names.held(member.suid)
    top = {"driver": "quorum", "children": [below], "vote-threshold": 1, "read-pattern": "fifo", "read-only": True}
    return (*nodes.fenced(below, member.chain, read_only=True), {**top, "node-name": names.image(member.suid)})


def watched(members: Iterable[tuple[LinkMember, Chain]], monitor: str, argv: tuple[str, ...]) -> tuple[str, ...]:
    """The path handler's command line with the process beside it, which has the monitor `monitor` for itself.

    `members` are the devices, each with its chain as it is once its image has another name.
    """
    about = [_about(member, later) for member, later in members if not member.writable]
    words = [word for each in about for word in each]
    return ("perl", "-e", _WATCHER, monitor, str(AGAIN_SECONDS), str(len(about)), *words, *argv)


def _about(member: LinkMember, later: Chain) -> tuple[str, ...]:
    """The nodes of a device, and its chain under both names, as qemu-io takes it."""
    suid = member.suid
    made = (names.held(suid), names.image(suid), names.served(suid), names.bad(suid))
    return (*made, _readable(later), _readable(member.chain))


def _readable(chain: Chain) -> str:
    """ "" where part of it is on another host: there what is bad is not told apart from the rest of its request."""
    return "" if link_of(chain) else f"json:{json.dumps(nodes.nested(images(chain)))}"
