"""`qemu-esd report`: one page that tells how a migration went."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qemu_esd.cli import complete, render


def report(
    word: Annotated[
        str,
        typer.Argument(
            metavar="ID|VM",
            help="A migration, or a guest for its last one.",
            autocompletion=complete.stories,
            callback=complete.one_line,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="qemu-esd-ID.html here, if nothing is said.")
    ] = None,
    steps: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A trace of the command (qemu-esd --trace FILE migrate ...), shown too."),
    ] = None,
) -> None:
    """Write one HTML page of how a migration went: phases, rates, stalls, what was where, warnings. Asks no host."""
    if output is not None:
        render.check_file(output, "--output")
    from qemu_esd import report as reporting
    from qemu_esd.cli import report_page

    told = reporting.of(word, steps)
    file = output or Path(f"qemu-esd-{told.plan.id}.html")
    render.check_file(file, "--output")
    render.write_file(file, report_page.page(told))
