"""`qemu-esd map`: where the data of a guest's disks is, as a picture."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import run


def map_disks(
    vm: complete.Vm,
    disk: Annotated[
        str | None, typer.Argument(help="One disk; all of them otherwise.", autocompletion=complete.disks)
    ] = None,
) -> None:
    """Draw what of each disk is local, what is remote, and what is a hole."""
    from rich.console import Console

    from qemu_esd import api
    from qemu_esd.cli import render_map

    host, maps = run(api.map_guest(vm, disk))
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    symbols = render_map.BLOCKS if encoding == "utf8" else render_map.ASCII
    for each in maps:
        render.show(render_map.picture(each, host, Console().width, symbols))
