"""What a host asks its guests on a device by itself, and tells them: programs in perl, by the device's local socket.

Guests are bare ones of ours, and domains of libvirt. One that a controller works on, or that somebody has paused, is
left alone.
"""

from __future__ import annotations

from qemu_esd.graph import perl

# `stopped(SOCKET)`: the guests on the device that an I/O error has stopped; of each its kind, its name, how its QEMU is
# asked, and how it is told to go on.
_STOPPED = (
    perl.QMP
    + perl.VIRSH
    + perl.MAY_GO_ON
    + r"""
sub stopped {
    my ($socket, @found) = @_;
    my ($run) = $socket =~ m{^(.*)/device/};
    for my $guest (glob "$run/vm/*") {
        my $ask = qmp("$guest/observe.sock") or next;
        next unless has_failed($ask) && index($ask->("query-named-block-nodes"), $socket) >= 0;
        my $go_on = sub { my $tell = qmp("$guest/control.sock") or return; $tell->("cont"); 1 };
        push @found, ["vm", $guest =~ m{([^/]*)$}, $ask, $go_on];
    }
    for my $domain (split " ", said("list", "--state-paused", "--uuid")) {
        my $ask = qemu_of($domain);
        next unless has_failed($ask) && index(said("dumpxml", $domain), "socket='$socket'") >= 0;
        my ($name) = said("domname", $domain) =~ /^(.*)/;
        push @found, ["domain", $name, $ask, sub { said("resume", $domain); 1 }];
    }
    return @found;
}
"""
)

# All but those that wait for room are told to go on. Status 1: somebody was told.
GO_ON = (
    _STOPPED
    + r"""
my $told = 0;
for my $guest (stopped($ARGV[0])) {
    my ($kind, $name, $ask, $go_on) = @$guest;
    $told = 1 if may_go_on($ask) && $go_on->();
}
exit $told;
"""
)

# Kind, name and disks of each that is stopped, as words that end in a zero byte.
TELL = (
    _STOPPED
    + r"""
for my $guest (stopped($ARGV[0])) {
    my ($kind, $name, $ask) = @$guest;
    print map { "$_\0" } $kind, $name, $ask->("query-block");
}
"""
)
