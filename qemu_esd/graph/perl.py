"""What a host says to a QMP socket by itself when we may be gone: POSIX sh cannot open one, and perl-base can."""

from __future__ import annotations

# `qmp(PATH)` gives a function that sends one command and returns the line that answers it, "" after 3 s of silence. It
# gives 0 where nobody greets: a monitor serves one client at a time, and lets another one wait without a word. It gives
# undef where nobody listens, because the QEMU is gone.
QMP = r"""
use strict; use IO::Socket::UNIX; use IO::Select;
sub qmp {
    my $qmp = IO::Socket::UNIX->new(Peer => shift) or return;
    my ($ready, $rest) = (IO::Select->new($qmp), "");
    my $hear = sub {
        my $word = shift;
        while (1) {
            while ($rest =~ s/^(.*)\n//) { my $line = $1; return $line if $line =~ /"$word"/; }
            return "" unless $ready->can_read(3) && sysread($qmp, $rest, 65536, length $rest);
        }
    };
    my $ask = sub { syswrite($qmp, "{\"execute\": \"$_[0]\"}\n"); $hear->("return") };
    return 0 unless $hear->("QMP");
    $ask->("qmp_capabilities");
    return $ask;
}
"""
