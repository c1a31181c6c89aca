"""`qemu-esd status`: where guests run, and where their data is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import is_interruption, run
from qemu_esd.errors import EsdError, UsageError

if TYPE_CHECKING:
    from qemu_esd.journal.lines import DamagedJournalError
    from qemu_esd.view import GuestView


def status(
    vm: Annotated[
        str | None,
        typer.Argument(help="One guest, in full; all that are known otherwise.", autocompletion=complete.vms),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Again and again, until q; without a terminal a line per change.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Where guests run; their policy, data here and on the source, link, background move, and what is needed next.

    Devices that look shared too, when all is asked for.
    """
    if watch:
        if as_json:
            raise UsageError("--watch and --json do not go together", hint="leave one of them out")
        _watch(vm)
        return
    guests, damaged = _look(vm)
    for damage in damaged:
        render.note(render.warning_text(damage))
    if as_json:
        render.show_json({"vms": [dataclasses.asdict(guest) for guest in guests]})
        return
    if guests:
        _show(guests, vm)
    else:
        render.show("no guest is known here; a running one is found with: qemu-esd vm list --host HOST")
    if vm is None:
        _show_devices()


def _look(vm: str | None) -> tuple[Sequence[GuestView], Sequence[DamagedJournalError]]:
    """Where no guest is known nobody is asked, and what asks is not even loaded."""
    from qemu_esd.journal import registry, store

    if vm is None and registry.is_empty():
        return (), store.read_all().damaged
    from qemu_esd import api

    seen = run(api.look_around(vm), "asking the hosts")
    return seen.guests, seen.damaged


def _show(guests: Sequence[GuestView], vm: str | None) -> None:
    from rich.console import Console

    from qemu_esd.cli import render_status, status_table

    if vm is None:
        render.show(status_table.table(guests, {}, Console().width))
    else:
        render.show(render_status.guest_page(guests[0]))


def _show_devices() -> None:
    """Those that look shared, and what each needs next."""
    from qemu_esd.journal import devices as known

    if not known.everything():
        return
    from qemu_esd import devices
    from qemu_esd.cli import render_device

    seen = run(devices.look_around(), "asking the hosts")
    render.show(render_device.overview(one for one in seen if not isinstance(one, EsdError)))
    for error in seen:
        if isinstance(error, EsdError):
            render.note(render.error_text(error))


def _watch(vm: str | None) -> None:
    """A signal ends it as `q` does."""
    from qemu_esd import api
    from qemu_esd.cli import watching

    async def look() -> Sequence[GuestView]:
        return await api.look_at_guests(vm)

    try:
        run(watching.watch(look, one=vm is not None))
    except BaseException as end:
        if not is_interruption(end):
            raise
