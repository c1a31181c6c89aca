"""The way from the target to the source's path handler: a supervised tunnel, or TCP with a watch beside it.

A dead link is noticed within 20 s either way: ssh has its own heartbeat, and a watch asks the path handler every few
seconds and cuts TCP connections that no longer lead anywhere. When the link is back, the watch lets a guest go on that
a failed read has stopped. Nothing of this needs our process.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from qemu_esd.graph import nodes, perl
from qemu_esd.hosts import files, service, ssh_keys
from qemu_esd.hosts.base import Host, shell
from qemu_esd.log import step
from qemu_esd.model.disk import Endpoint, Link, PlainTcp, TlsTcp, UnixPath
from qemu_esd.model.host import HostPaths
from qemu_esd.model.plan import Plan, Transport
from qemu_esd.model.resource import AuthorizedKey
from qemu_esd.model.vm import Kind
from qemu_esd.phases import places
from qemu_esd.phases.context import Context

# Two probes of PROBE_SECONDS with INTERVAL_SECONDS before each: 16 s at the worst.
INTERVAL_SECONDS, PROBE_SECONDS = 3, 5

_WATCH = r"""
fails=0 again=$9 pause=$4
while :; do
    sleep "$pause"
    pause=$4
    if timeout "$3" qemu-img info --output=json --object "$5" "json:$6" >/dev/null; then
        fails=0
        rm -f down
        # Errors can follow for some seconds after a link is back: until it has run for so many rounds.
        if [ $again -gt 0 ]; then
            if perl -e "$8" "$7"; then
                [ $again -eq $9 ] || again=$((again - 1))
            else
                # Once is often not enough: see whether it is soon.
                again=8 pause=1
            fi
        fi
    else
        fails=$((fails + 1))
        again=8
        [ -e down ] || cut -d . -f 1 /proc/uptime >down
        if [ $fails -ge 2 ] && [ -n "$1" ]; then ss -tK dst "$1" dport = "$2" >/dev/null; fi
    fi
done
"""

# A guest that a failed read has stopped (`io-error`) is told to go on: status 1, look again. One that runs, waits for
# room, was paused by somebody, or is being worked on by a controller (which holds its control monitor) is left alone:
# status 0.
_GO_ON = (
    perl.QMP
    + perl.MAY_GO_ON
    + r"""
my $ask = qmp($ARGV[0]) or exit 0;
exit 0 unless may_go_on($ask);
$ask->("cont");
exit 1;
"""
)

# The same of a domain, by its libvirt, or its QEMU where libvirt believes that it runs. It has to be told twice after a
# restart of the relay: by the first read the QEMU only connects.
_GO_ON_DOMAIN = (
    perl.VIRSH
    + perl.MAY_GO_ON
    + r"""
my ($name) = $ARGV[0] =~ /^libvirt:(.*)/s;
my $ask = qemu_of($name);
exit 0 unless may_go_on($ask);
system(@virsh, "resume", "--domain", $name) == 0 or $ask->("cont");
exit 1;
"""
)


@dataclass(frozen=True)
class GoOn:
    """By what guests are told to go on that a failed read has stopped: a program in perl, and its word.

    Status 1: it has told somebody. It is asked after the link was down, or `always`.
    """

    program: str
    word: str
    always: bool = False


def go_on_of(kind: Kind, monitor: str) -> GoOn:
    """Of a migration's guest. A domain's relay can fail too, which the link does not show."""
    return GoOn(_GO_ON, monitor) if kind is Kind.BARE else GoOn(_GO_ON_DOMAIN, monitor, always=True)


@step
async def connect(ctx: Context) -> None:
    """Make the link usable for the target's QEMU, before that QEMU starts."""
    if ctx.plan.transport is Transport.SSH:
        await _start_tunnel(ctx)


@step
async def watch(ctx: Context) -> None:
    """Start what notices that the link is dead."""
    unit = places.watch(ctx.plan)
    link = next((disk.link for disk in ctx.plan.disks), None)
    if link is None:
        return
    ctx.hold(unit)
    argv = watch_argv(link, go_on_of(ctx.plan.guest.kind, places.target_monitor(ctx.plan)))
    watcher = service.Service(unit.name, ctx.plan.target.paths.unit(unit.name), argv, restart=True)
    await service.start(await ctx.target(), watcher)


# Of the host's uptime, which no clock that is set disturbs.
_DOWN = 'if t=$(cat -- "$1/down" 2>/dev/null); then echo $(($(cut -d . -f 1 /proc/uptime) - t)); fi'


async def down_seconds(host: Host, paths: HostPaths, migration: str) -> int | None:
    """For how long the watch of a link on `host` has had no answer from the other end; None: the last one came."""
    told = (await shell(host, _DOWN, paths.unit(places.watch_name(migration)))).text.strip()
    return int(told) if told else None


def watch_argv(link: Link, go_on: GoOn) -> tuple[str, ...]:
    """The watch of a link. Its words are an address, nodes, a guest's monitor or the like; a key stays in its file."""
    node = {key: value for key, value in nodes.link("probe", link).items() if key != "node-name"}
    node |= {"reconnect-delay": 0, "open-timeout": 0}
    credentials = nodes.tls_object(link.endpoint, "client") or {"qom-type": "secret", "id": "none", "data": ""}
    seconds = (str(PROBE_SECONDS), str(INTERVAL_SECONDS))
    probe = (*_cut_by(link.endpoint), *seconds, json.dumps(credentials), json.dumps(node))
    words = (*probe, go_on.word, go_on.program, "1" if go_on.always else "0")
    return ("sh", "-c", _WATCH, "esd-watch", *words)


def _cut_by(endpoint: Endpoint) -> tuple[str, str]:
    """By what the connections of a dead link are found; a tunnel cuts its own."""
    match endpoint:
        case TlsTcp(address, port) | PlainTcp(address, port):
            return address, str(port)
        case UnixPath():
            return "", ""


async def _start_tunnel(ctx: Context) -> None:
    plan, unit = ctx.plan, places.tunnel(ctx.plan)
    await _exchange_keys(ctx)
    ctx.hold(unit)
    ram = f"{places.ram_socket(plan, plan.source)}:{places.ram_socket(plan, plan.target)}"
    argv = await _tunnel_argv(ctx, "-R", ram)
    tunnel = service.Service(unit.name, plan.target.paths.unit(unit.name), argv, restart=True)
    await service.start_ready(await ctx.target(), tunnel, tunnel_socket(plan))


def tunnel_socket(plan: Plan) -> str:
    """The target's end of the tunnel to the path handler."""
    return f"{plan.target.paths.link_run(plan.id)}/nbd.sock"


async def _exchange_keys(ctx: Context) -> None:
    """The target may forward through the source's sshd, with a key that only this migration has."""
    plan = ctx.plan
    source, target = await ctx.source(), await ctx.target()
    comment = ssh_keys.comment_of(plan.id)
    folder = plan.target.paths.link_state(plan.id)
    public = await ssh_keys.generate(target, f"{folder}/tunnel.key", comment)
    ctx.hold(AuthorizedKey(plan.source.host, comment))
    await ssh_keys.allow(source, public, comment)
    access = await source.ssh_access()
    line = f"[{plan.source.address}]:{access.port} {access.host_key}\n"
    await files.write(target, f"{folder}/known_hosts", line.encode())


async def _tunnel_argv(ctx: Context, *extra: str) -> tuple[str, ...]:
    plan = ctx.plan
    access = await (await ctx.source()).ssh_access()
    state, here, there = (
        plan.target.paths.link_state(plan.id),
        plan.target.paths.link_run(plan.id),
        plan.source.paths.link_run(plan.id),
    )
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": "5",
        "ExitOnForwardFailure": "yes",
        "IdentitiesOnly": "yes",
        "IdentityFile": f"{state}/tunnel.key",
        "ServerAliveCountMax": "2",
        "ServerAliveInterval": "5",
        "StreamLocalBindMask": "0177",
        "StreamLocalBindUnlink": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f"{state}/known_hosts",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    forwards = ["-L", f"{here}/nbd.sock:{there}/nbd.sock"]
    return (
        "ssh", "-F", "none", "-N", "-T", *words, *forwards, *extra,
        "-p", str(access.port), "-l", access.user, "--", plan.source.address,
    )  # fmt: skip


async def after_switchover(ctx: Context) -> None:
    """A tunnel that is restarted later has no RAM to carry: its end on the source would stand in the way."""
    if ctx.plan.transport is Transport.SSH:
        folder = ctx.plan.target.paths.unit(places.tunnel(ctx.plan).name)
        await service.rewrite(await ctx.target(), folder, await _tunnel_argv(ctx))
