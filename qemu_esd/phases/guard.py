"""A guard on the source while memory moves: if we die, it takes the guest back.

Before the switchover QEMU stops the guest and waits to be told to go on. Were we killed, nobody would tell it, and the
guest would stand still until somebody looked. The guard is a small program that hears a beat of ours; when that ends,
with our process or with the network, it cancels the stream, unless the guest has been given away already. A source
that is deaf meanwhile sends the last of its guest into a dead link, and would do so until TCP gives up, after a quarter
of an hour: its connection is cut. Over ssh the tunnel has a heartbeat for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from qemu_esd.graph import perl
from qemu_esd.hosts.base import Writer
from qemu_esd.model.host import guest_sockets
from qemu_esd.model.plan import Plan, Transport
from qemu_esd.phases.context import Context

BEAT_SECONDS = 2.0
# Longer than ssh needs to say that its connection is dead (15 s): then we are the first to act.
SILENCE_SECONDS = 25
# How often a source is asked that gives no answer: it is busy, or somebody else has its monitors.
ROUNDS = 30

# Of the monitors, one that is held by a dead connection does not greet, and the next one is tried.
_GUARD = (
    perl.QMP
    + r"""
my ($silence, $rounds, $address, $port, @sockets) = @ARGV;
my $beats = IO::Select->new(\*STDIN);
while ($beats->can_read($silence)) {
    last unless sysread(STDIN, my $text, 4096);
    exit 0 if $text =~ /end/;
}
for (1 .. $rounds) {
    my $lives;
    for my $path (@sockets) {
        my $ask = qmp($path);
        $lives ||= defined $ask;
        $ask or next;
        my $said = $ask->("query-migrate") or next;
        last if $said =~ /"status": *"device"/;
        if ($said =~ /"status": *"(setup|active|pre-switchover)"/) { $ask->("migrate_cancel") }
        exit 0;
    }
    last unless $lives;
    system "ss", "-tK", "dst", $address, "dport", "=", $port if $port;
    sleep 1;
}
"""
)


@asynccontextmanager
async def guarded(ctx: Context) -> AsyncIterator[None]:
    """While this is open the source's guest does not depend on us."""
    host, plan = await ctx.source(), ctx.plan
    user = guest_sockets(plan.source.paths, plan.vm).user
    sockets = dict.fromkeys((plan.guest.monitor, *([user] if plan.guest.ours else [])))
    async with host.keep(("perl", "-e", _GUARD, str(SILENCE_SECONDS), str(ROUNDS), *_stream(plan), *sockets)) as guard:
        beating = asyncio.ensure_future(_beat(guard))
        try:
            yield
        finally:
            beating.cancel()
            with suppress(OSError):
                guard.write(b"end\n")
                await guard.drain()


def _stream(plan: Plan) -> tuple[str, str]:
    """Where the guest's memory goes, as address and port; nothing where a tunnel carries it."""
    return ("", "") if plan.transport is Transport.SSH else (plan.target.address, str(plan.ram_port))


async def _beat(guard: Writer) -> None:
    """The silence of a dead connection is what the guard waits for, so it is no error here."""
    with suppress(OSError):
        while True:
            guard.write(b"on\n")
            await guard.drain()
            await asyncio.sleep(BEAT_SECONDS)
