"""`qemu-esd host`: a host as a whole."""

from __future__ import annotations

import shlex

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import run, stopped
from qemu_esd.errors import EsdError

app = typer.Typer(no_args_is_help=True, help="A host as a whole.")


@app.callback()
def about() -> None:
    """A host as a whole."""


@app.command()
def restore(host: complete.AHost) -> None:
    """After a reboot of HOST: serve again what guests elsewhere read from it, stand its links, run its devices."""
    from qemu_esd import restore as restoring
    from qemu_esd.hosts.connect import open_hosts

    async def work() -> tuple[restoring.Restored, ...]:
        async with open_hosts() as hosts:
            return await restoring.restore(hosts, host)

    with stopped(f"some of what {host} serves may run already", f"qemu-esd host restore {shlex.quote(host)}"):
        restored = run(work(), f"restoring {host}")
    for unit in restored:
        render.show(f"{unit.unit}: {render.printable(unit.outcome)}")
    if not restored:
        render.show(f"{host} serves nothing, and reads from nowhere")
    if any(unit.failed for unit in restored):
        raise EsdError("not all of it runs", host=host, hint="mend what is named, then the same again")
