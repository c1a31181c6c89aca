"""`qemu-esd status`: where guests run, and where their data is."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from qemu_esd.cli import render
from qemu_esd.cli.running import run


def status(
    vm: Annotated[str | None, typer.Argument(help="One guest; all that are known otherwise.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Where guests run; per disk: policy, bytes here and on the source; link and background move."""
    from qemu_esd import api
    from qemu_esd.cli.render_status import guest_picture
    from qemu_esd.journal import store

    guests = run(api.look_at_guests(vm))
    for damage in store.damaged():
        render.note(render.warning_text(damage))
    if as_json:
        render.show_json({"vms": [dataclasses.asdict(guest) for guest in guests]})
        return
    for guest in guests:
        render.show(guest_picture(guest))
    if not guests:
        render.show("no guest is known here; a running one is found with: qemu-esd vm list --host HOST")
