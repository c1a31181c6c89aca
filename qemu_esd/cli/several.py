"""One guest or several, for commands that take either: done side by side, and what became of each is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import typer

from qemu_esd.cli import render
from qemu_esd.errors import EsdError

if TYPE_CHECKING:
    from qemu_esd.view import GuestView


async def side_by_side(vms: Sequence[str], work: Callable[[str], Awaitable[GuestView]]) -> list[GuestView | EsdError]:
    """One that fails keeps no other."""
    import asyncio

    async def one(vm: str) -> GuestView | EsdError:
        try:
            return await work(vm)
        except EsdError as error:
            return error

    return list(await asyncio.gather(*map(one, dict.fromkeys(vms))))


def tell(seen: Sequence[GuestView | EsdError], *, as_json: bool) -> None:
    """Raises the error of the only one; those of several are told beside the guests that went well."""
    if len(seen) == 1 and isinstance(seen[0], EsdError):
        raise seen[0]
    guests = [each for each in seen if not isinstance(each, EsdError)]
    errors = [each for each in seen if isinstance(each, EsdError)]
    _show(guests, as_json=as_json, alone=len(seen) == 1)
    for error in errors:
        render.note(render.error_text(error))
    if errors:
        raise typer.Exit(max(error.exit_status for error in errors))


def _show(guests: Sequence[GuestView], *, as_json: bool, alone: bool) -> None:
    from qemu_esd.cli.render_status import guest_picture

    if as_json:
        told = [dataclasses.asdict(guest) for guest in guests]
        # As `status` tells of several.
        render.show_json(told[0] if alone else {"vms": told})
        return
    for guest in guests:
        render.show(guest_picture(guest))
