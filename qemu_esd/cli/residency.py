"""`qemu-esd map`: where the data of a guest's disks is, as a picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import run


def map_disks(
    vm: complete.Vm,
    disk: Annotated[
        str | None, typer.Argument(help="One disk; all of them otherwise.", autocompletion=complete.disks)
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="As a picture, into FILE.")] = None,
) -> None:
    """Draw what of each disk is local, what is remote, and what is a hole."""
    if svg is not None:
        render.check_file(svg, "--svg")
    from rich.console import Console

    from qemu_esd import api
    from qemu_esd.cli import map_svg, render_map

    host, maps = run(api.map_guest(vm, disk), "asking for maps")
    if svg is not None:
        render.write_file(svg, map_svg.svg(vm, host, maps))
        return
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    symbols = render_map.BLOCKS if encoding == "utf8" else render_map.ASCII
    for each in maps:
        render.show(render_map.picture(each, host, Console().width, symbols))
