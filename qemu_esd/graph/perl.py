"""What a host says to QEMUs by itself when we may be gone: POSIX sh cannot open a QMP socket, and perl-base can."""

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

# `said(WORDS)` is what virsh says. `qemu_of(DOMAIN)` gives the same as `qmp`, for the QEMU of a domain.
VIRSH = r"""
use strict;
my @virsh = qw(virsh --quiet --connect qemu:///system);
open STDERR, ">", "/dev/null";
sub said { open my $pipe, "-|", @virsh, @_ or return ""; join "", <$pipe> }
sub qemu_of { my $name = shift; sub { said("qemu-monitor-command", "--domain", $name, qq({"execute": "$_[0]"})) } }
"""

# `has_failed(ASK)`: an I/O error has stopped the guest. `may_go_on(ASK)`: and it is not that it waits for room. One
# that does not tell is left alone: told to go on while it waits for room, it would lose the reason that `status` gives.
MAY_GO_ON = r"""
sub has_failed { shift->("query-status") =~ /"status": *"io-error"/ }
sub may_go_on {
    my $ask = shift;
    return 0 unless has_failed($ask);
    my $disks = $ask->("query-block");
    return $disks ne "" && $disks !~ /"io-status": *"nospace"/;
}
"""
