"""`qemu-esd migrate`: the main job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.errors import UsageError
from qemu_esd.model.policy import Handler, check_write_policy, parse_handler, parse_read_errors
from qemu_esd.units import parse_rate

if TYPE_CHECKING:
    from qemu_esd.model.pace import Bandwidth
    from qemu_esd.model.plan import Transport
    from qemu_esd.model.request import Request

POLICIES = """on-demand: read from the source when asked for, and keep it
background: all of it is brought over while the guest runs
redirect: read from the source whenever asked for, keep nothing
miss: data left behind cannot be read (the guest's caching layer fetches it elsewhere)"""


# What QEMU takes at most.
MOST_DOWNTIME_MS = 2_000_000
_IN_ONE_LINE = POLICIES.replace("\n", "; ")


def migrate(
    vm: Annotated[
        str,
        typer.Argument(
            help="A running guest with local disks.", autocompletion=complete.vms, callback=complete.one_line
        ),
    ],
    host: Annotated[
        str,
        typer.Argument(
            help="Where it is to run: as for ssh, or a lab host.",
            autocompletion=complete.hosts,
            callback=complete.each_host,
        ),
    ],
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="P",
            help=f"What becomes of the data (needed). {_IN_ONE_LINE}",
            autocompletion=complete.policies,
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="HOST",
            help="Where it runs now, if that is not known.",
            autocompletion=complete.hosts,
            callback=complete.each_host,
        ),
    ] = None,
    disk_policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DISK=P",
            help="Another policy for one disk; can be repeated.",
            autocompletion=complete.disk_policies,
        ),
    ] = None,
    write_policy: Annotated[str, typer.Option(metavar="local", help="Where writes go.")] = "local",
    no_local_space: Annotated[
        bool, typer.Option("--no-local-space", help="The target gives no space: the source is read and written.")
    ] = False,
    read_errors: Annotated[
        str,
        typer.Option(
            metavar="stop|report", help="A read that the source cannot answer pauses the guest, or is its error."
        ),
    ] = "stop",
    transport: Annotated[
        str | None, typer.Option(metavar="tls|ssh", help="How the hosts talk: TLS by default, or one ssh.")
    ] = None,
    plaintext: Annotated[
        bool, typer.Option("--plaintext", help="Send memory and disks unencrypted. Only on a wire you own.")
    ] = False,
    bandwidth: Annotated[
        str | None,
        typer.Option(
            metavar="RATE|auto",
            help="Limit of the background move: 100M, 1gbit; auto: as fast as the guest bears.",
        ),
    ] = None,
    downtime: Annotated[
        int | None, typer.Option(metavar="MS", help="How long the guest may stand still, in milliseconds.")
    ] = None,
    ports: Annotated[
        str | None, typer.Option(metavar="FIRST-LAST", help="TCP ports to choose from, one on each host.")
    ] = None,
    overlay_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder on the target for the disks' new members.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and every problem, do nothing.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return after the handover; the move goes on by itself.")
    ] = False,
    release: Annotated[
        bool, typer.Option("--release", help="Let the source forget the guest as soon as it is settled.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Move a running guest with local disks to another host, at once."""
    from qemu_esd.cli import migrating
    from qemu_esd.model.request import Request

    check_write_policy(write_policy)
    request = Request(
        vm=vm,
        target=host,
        handler=_handler(policy),
        source=source,
        disk_handlers=parse_disk_policies(disk_policy or []),
        transport=parse_transport(transport, plaintext),
        local_space=not no_local_space,
        read_errors=parse_read_errors(read_errors),
        overlay_folder=overlay_dir,
        bandwidth=parse_bandwidth(bandwidth),
        downtime_ms=_milliseconds(downtime),
        ports=parse_ports(ports),
    )
    if release:
        _check_release(request)
    if plaintext:
        render.note(render.warning(PLAINTEXT_WARNING))
    if dry_run:
        migrating.try_out(request, as_json)
    else:
        migrating.move(migrating.Order(request, detach, release, ask=not yes, as_json=as_json))


PLAINTEXT_WARNING = """--plaintext: memory and disks of the guest cross the network unencrypted,
and whoever is on it can read them and change them."""


def _handler(text: str | None) -> Handler:
    if text is None:
        lines = POLICIES.replace("\n", "\n       --policy ")
        raise UsageError("say with --policy what is to become of the data", hint=f"--policy {lines}")
    return parse_handler(text)


def parse_disk_policies(texts: list[str]) -> dict[str, Handler]:
    """Handlers by disk, of texts like "vda=miss". Raises UsageError."""
    chosen: dict[str, Handler] = {}
    for text in texts:
        disk, equals, handler = text.partition("=")
        if not (disk and equals):
            raise UsageError(f"--disk-policy {text!r} does not say DISK=POLICY", hint="write it like vda=miss")
        if disk in chosen:
            raise UsageError(f"--disk-policy names {disk} twice")
        chosen[disk] = parse_handler(handler)
    return chosen


def parse_transport(text: str | None, plaintext: bool) -> Transport:
    """Raises UsageError for an unknown one, and for one that says it encrypts together with --plaintext."""
    from qemu_esd.model.plan import Transport

    encrypted = (Transport.TLS, Transport.SSH)
    if text is not None and text not in encrypted:
        raise UsageError(f"there is no transport {text!r}", hint=f"choose one of {', '.join(encrypted)}")
    if plaintext and text is not None:
        raise UsageError(f"--plaintext and --transport {text} contradict each other", hint="leave one of them out")
    return Transport.PLAINTEXT if plaintext else Transport(text or Transport.TLS)


def parse_ports(text: str | None) -> range:
    """The ports of "49800-49899"; the usual ones of None. Raises UsageError."""
    from qemu_esd.model.request import DEFAULT_PORTS

    if text is None:
        return DEFAULT_PORTS
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < 1 << 16):
        raise UsageError(f"{text!r} is not a range of ports", hint="write it like 49800-49899")
    return range(int(first), int(last) + 1)


def parse_bandwidth(text: str | None) -> Bandwidth:
    """What --bandwidth says. Raises UsageError."""
    from qemu_esd.model.pace import AUTO

    if text is None:
        return None
    return AUTO if text.strip().lower() == AUTO else parse_limit(text)


def parse_limit(text: str) -> int:
    """What --bandwidth says, in bytes per second. Raises UsageError."""
    rate = parse_rate(text)
    if rate < 1:
        raise UsageError("--bandwidth must be more than zero", hint="leave it out for no limit")
    return rate


def _milliseconds(downtime: int | None) -> int | None:
    if downtime is not None and not 1 <= downtime <= MOST_DOWNTIME_MS:
        what = f"--downtime is at least one millisecond, and at most {MOST_DOWNTIME_MS}"
        raise UsageError(what, hint="QEMU's own limit is 300")
    return downtime


def _check_release(request: Request) -> None:
    """A source that is needed for as long as the guest runs cannot forget it."""
    for handler in (request.handler, *request.disk_handlers.values()):
        if handler in (Handler.ON_DEMAND, Handler.REDIRECT):
            raise UsageError(
                f"--release needs a policy that ends by itself, and {handler} goes on needing the source",
                hint="choose --policy background, or later: qemu-esd settle, then qemu-esd release",
            )
