"""`qemu-esd status`: where guests run, and where their data is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import run

if TYPE_CHECKING:
    from qemu_esd.journal.lines import DamagedJournalError
    from qemu_esd.view import GuestView


def status(
    vm: Annotated[
        str | None, typer.Argument(help="One guest; all that are known otherwise.", autocompletion=complete.vms)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Where guests run; per disk: policy, bytes here and on the source; link and background move."""
    guests, damaged = _look(vm)
    for damage in damaged:
        render.note(render.warning_text(damage))
    if as_json:
        render.show_json({"vms": [dataclasses.asdict(guest) for guest in guests]})
    elif guests:
        _show(guests)
    else:
        render.show("no guest is known here; a running one is found with: qemu-esd vm list --host HOST")


def _look(vm: str | None) -> tuple[Sequence[GuestView], Sequence[DamagedJournalError]]:
    """Where no guest is known nobody is asked, and what asks is not even loaded."""
    from qemu_esd.journal import registry, store

    if vm is None and registry.is_empty():
        return (), store.read_all().damaged
    from qemu_esd import api

    seen = run(api.look_around(vm))
    return seen.guests, seen.damaged


def _show(guests: Iterable[GuestView]) -> None:
    from qemu_esd.cli.render_status import guest_picture

    for guest in guests:
        render.show(guest_picture(guest))
