"""`qemu-esd status`: where guests run, and where their data is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import is_interruption, run
from qemu_esd.errors import EsdError, UsageError

if TYPE_CHECKING:
    from qemu_esd.journal.lines import DamagedJournalError
    from qemu_esd.phases.device_look import View
    from qemu_esd.view import GuestView


def status(
    vm: Annotated[
        str | None,
        typer.Argument(
            help="One guest, in full; all that are known otherwise.",
            autocompletion=complete.vms,
            callback=complete.one_line,
        ),
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
    seen = _look(vm, as_json=as_json)
    for damage in seen.damaged:
        render.note(render.warning_text(damage))
    if as_json:
        render.show_json({"vms": [dataclasses.asdict(guest) for guest in seen.guests]})
        return
    if seen.guests:
        _show(seen.guests, vm)
    else:
        render.show("no guest is known here; a running one is found with: qemu-esd vm list --host HOST")
    if seen.devices:
        _show_devices(seen.devices)


@dataclass(frozen=True)
class _Seen:
    """What there is to show. A device that could not be looked at is told by what hindered."""

    guests: Sequence[GuestView]
    damaged: Sequence[DamagedJournalError]
    devices: Sequence[View | EsdError] = ()


def _look(vm: str | None, *, as_json: bool) -> _Seen:
    """Devices only where they are shown. Where nothing is known nobody is asked, and what asks is not even loaded."""
    from qemu_esd.journal import devices, registry, shelf

    with_devices = vm is None and not as_json and bool(devices.everything())
    if vm is None and registry.is_empty() and not with_devices:
        return _Seen((), shelf.read_all().damaged)
    return run(_ask(vm, with_devices), "asking the hosts")


async def _ask(vm: str | None, with_devices: bool) -> _Seen:
    """Guests and devices side by side: a host that does not answer is waited for once."""
    import asyncio

    from qemu_esd import api, devices

    if not with_devices:
        overview = await api.look_around(vm)
        return _Seen(overview.guests, overview.damaged)
    overview, seen = await asyncio.gather(api.look_around(vm), devices.look_around())
    return _Seen(overview.guests, overview.damaged, seen)


def _show(guests: Sequence[GuestView], vm: str | None) -> None:
    from rich.console import Console

    from qemu_esd.cli import render_status, status_table

    if vm is None:
        render.show(status_table.table(guests, {}, Console().width))
    else:
        render.show(render_status.guest_page(guests[0]))


def _show_devices(seen: Sequence[View | EsdError]) -> None:
    """Those that look shared, and what each needs next."""
    from qemu_esd.cli import render_device

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
