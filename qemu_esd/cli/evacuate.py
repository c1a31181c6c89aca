"""`qemu-esd evacuate`: a host is emptied of its guests."""

from __future__ import annotations

from typing import Annotated

import typer

from qemu_esd.cli import complete
from qemu_esd.cli.migrate import parse_bandwidth, parse_ports, parse_transport
from qemu_esd.model.policy import parse_handler


def evacuate(
    host: Annotated[
        str,
        typer.Argument(help="The host that is to be free.", autocompletion=complete.hosts, callback=complete.each_host),
    ],
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="Where its guests are to run.",
            autocompletion=complete.hosts,
            callback=complete.each_host,
        ),
    ],
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            metavar="P",
            help="As for migrate. With on-demand and redirect HOST is still needed at the end.",
            autocompletion=complete.policies,
        ),
    ] = "background",
    bandwidth: Annotated[
        str | None,
        typer.Option(
            metavar="RATE|auto",
            help="Limit of each guest's background move: 100M, 1gbit; auto: as fast as the guest bears.",
        ),
    ] = None,
    transport: Annotated[
        str | None, typer.Option(metavar="tls|ssh", help="How the hosts talk: TLS by default, or one ssh per guest.")
    ] = None,
    ports: Annotated[
        str | None,
        typer.Option(metavar="FIRST-LAST", help="TCP ports to choose from, one on each host for each guest."),
    ] = None,
    overlay_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder on the targets for the disks' new members.")
    ] = None,
    overcommit: Annotated[
        bool,
        typer.Option(
            "--overcommit", help="Keep no room on the targets for guests that fill all their memory and disks."
        ),
    ] = False,
    skip_refused: Annotated[
        bool, typer.Option("--skip-refused", help="Leave guests that cannot move where they are; else none is moved.")
    ] = False,
    release: Annotated[
        bool, typer.Option("--release", help="Let HOST forget each guest as soon as it is settled.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and every problem, do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Move all guests of a host to others, and wait until nothing depends on it: then it may be switched off.

    All of them are tried out first; if one cannot move nothing is touched. The guest with the most memory chooses
    first, and takes of the targets with room the one with the most memory left. They move one after another, and their
    data follows side by side. Given again after whatever has stopped it, it goes on.

    Ends with 0 if nothing depends on the host any more, with 1 if something stays on it, with 4 if all guests have left
    and some still need it.
    """
    from qemu_esd.cli import evacuating
    from qemu_esd.model.evacuation import Evacuation

    order = Evacuation(
        source=host,
        targets=tuple(dict.fromkeys(targets)),
        handler=parse_handler(policy),
        transport=parse_transport(transport, plaintext=False),
        overlay_folder=overlay_dir,
        bandwidth=parse_bandwidth(bandwidth),
        ports=parse_ports(ports),
        overcommit=overcommit,
        skip_refused=skip_refused,
        release=release,
    )
    if dry_run:
        evacuating.try_out(order, as_json)
    else:
        evacuating.carry_out(order, ask=not yes, as_json=as_json)
