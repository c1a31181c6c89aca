"""The command line: one sub-module per command, errors as one clear message, exit status as in the contract."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from qemu_esd import log
from qemu_esd.cli import guest, lab, migrate, residency
from qemu_esd.errors import EsdError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=True)
app.add_typer(lab.app, name="lab")
app.add_typer(guest.app, name="vm")
migrate.add_to(app)
residency.add_to(app)


@app.callback()
def options(verbose: int = typer.Option(0, "-v", "--verbose", count=True, help="Say what is done; twice: all.")) -> None:
    """Local disks that behave as one shared storage device: guests move at once, data by policy."""
    log.configure(verbose)
    app.info.epilog = str(verbose)


def main() -> None:
    """Run one command and end with its exit status."""
    try:
        app()
    except EsdError as error:
        tell(error)
        sys.exit(error.exit_status)


def tell(error: EsdError) -> None:
    """An error as a person reads it: what failed, where, and what to do."""
    console = Console(stderr=True, highlight=False)
    console.print(f"[bold red]error:[/] {error}", soft_wrap=True)
    if error.hint:
        console.print(f"  [bold]try:[/] {error.hint}", soft_wrap=True)
