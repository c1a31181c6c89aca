"""`qemu-esd release`: let the source forget."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from qemu_esd.cli import complete, several
from qemu_esd.cli.running import run, stopped


def release(
    vms: complete.Vms,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Let former hosts delete what they keep of guests; refused while anything still needs it."""
    from qemu_esd import api

    with stopped(f"some of what {', '.join(vms)} left may be deleted already", f"qemu-esd release {shlex.join(vms)}"):
        seen = run(several.side_by_side(vms, api.release_guest), "deleting what was left")
    several.tell(seen, as_json=as_json)
