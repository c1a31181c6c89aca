"""`qemu-esd doctor`: what would stand in the way of a migration, and what mends it."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import run
from qemu_esd.errors import RefusedError


def doctor(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[HOST...]",
            help="Hosts to look at; all that are known, without.",
            autocompletion=complete.hosts,
            callback=complete.each_host,
        ),
    ] = None,
    ports: Annotated[
        str | None, typer.Option(metavar="FIRST-LAST", help="The TCP ports that a migration is to choose from.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Look at hosts and at the ways between them: what is missing, why it matters, what mends it. Touches nothing.

    Ends with 0 if nothing stands in the way of a migration, else with 3.
    """
    from qemu_esd import api, listing
    from qemu_esd.cli.migrate import parse_ports
    from qemu_esd.model.finding import Level
    from qemu_esd.phases import health

    findings = run(
        api.examine(hosts or listing.known_hosts(), parse_ports(ports)),
        "looking at the hosts, and at the ways between them",
    )
    if as_json:
        render.show_json({"findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        from qemu_esd.cli import render_doctor

        render.show(render_doctor.findings_picture(findings))
    if health.worst(findings) is Level.PROBLEM:
        raise typer.Exit(RefusedError.exit_status)
