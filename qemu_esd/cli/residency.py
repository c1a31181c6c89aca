"""`qemu-esd map`: where the data of a guest's disks is, as a picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import run

if TYPE_CHECKING:
    from qemu_esd.view import DiskMap


def map_disks(
    vm: Annotated[str, typer.Argument(autocompletion=complete.vms_and_suids, callback=complete.one_line)],
    disk: Annotated[
        str | None, typer.Argument(help="One disk; all of them otherwise.", autocompletion=complete.disks)
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="As a picture, into FILE.")] = None,
) -> None:
    """Draw what of each disk is local, what is remote, and what is a hole; also of a device that looks shared."""
    if svg is not None:
        render.check_file(svg, "--svg")
    from rich.console import Console

    from qemu_esd.cli import map_svg, render_map

    host, maps = run(_maps(vm, disk), "asking for maps")
    if svg is not None:
        render.write_file(svg, map_svg.svg(vm, host, maps))
        return
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    symbols = render_map.BLOCKS if encoding == "utf8" else render_map.ASCII
    for each in maps:
        render.show(render_map.picture(each, host, Console().width, symbols))


async def _maps(name: str, disk: str | None) -> tuple[str, Sequence[DiskMap]]:
    """The host that has the data of a guest, or of a device where no guest is called so, and the maps."""
    from qemu_esd import api, devices
    from qemu_esd.journal import devices as known
    from qemu_esd.journal import registry

    if registry.find(name) is not None or not known.hosts_of(name):
        return await api.map_guest(name, disk)
    async with devices.opened() as crew:
        view = await devices.look(crew, name)
    return view.record.authority, [devices.map_of(view)]
