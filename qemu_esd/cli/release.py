"""`qemu-esd release`: let the source forget."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import run


def release(
    vm: complete.Vm,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Let former hosts delete what they keep of a guest; refused while anything still needs it."""
    from qemu_esd import api
    from qemu_esd.cli.render_status import guest_picture

    seen = run(api.release_guest(vm))
    if as_json:
        render.show_json(dataclasses.asdict(seen))
    else:
        render.show(guest_picture(seen))
