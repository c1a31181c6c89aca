"""`qemu-esd release`: let the source forget."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import run, stopped


def release(
    vm: complete.Vm,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Let former hosts delete what they keep of a guest; refused while anything still needs it."""
    from qemu_esd import api
    from qemu_esd.cli.render_status import guest_picture

    with stopped(f"some of what {vm} has left may be deleted already", f"qemu-esd release {shlex.quote(vm)}"):
        seen = run(api.release_guest(vm), "deleting what was left")
    if as_json:
        render.show_json(dataclasses.asdict(seen))
    else:
        render.show(guest_picture(seen))
