"""`qemu-esd settle`: bring over what is left."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import run
from qemu_esd.errors import UnfinishedError

if TYPE_CHECKING:
    from qemu_esd.cli.render_progress import Display, Event
    from qemu_esd.view import GuestView


def settle(
    vm: complete.Vm,
    background_only: Annotated[
        bool, typer.Option("--background-only", help="Only what the policy moves by itself: no on-demand, no redirect.")
    ] = False,
    release: Annotated[
        bool, typer.Option("--release", help="Let the source forget the guest when nothing needs it any more.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Bring over what is left, flush, verify, cut the link to the source."""
    import asyncio

    from qemu_esd.cli.render_progress import display_for
    from qemu_esd.cli.render_status import guest_picture

    display = display_for(sys.stderr)
    if sys.stderr.isatty():
        display.say(f"looking at {vm}")
    try:
        seen = run(_settle(vm, background_only, release, display))
    except asyncio.CancelledError:
        words = f"stopped: {vm} runs where it did, and QEMU's own job goes on moving its data"
        hint = f"qemu-esd settle {'--background-only ' if background_only else ''}{shlex.quote(vm)}"
        raise UnfinishedError(words, hint=hint) from None
    finally:
        display.close()
    if as_json:
        render.show_json(dataclasses.asdict(seen))
    else:
        render.show(guest_picture(seen))


async def _settle(vm: str, background_only: bool, release: bool, display: Display) -> GuestView:
    from qemu_esd import api
    from qemu_esd.model.progress import Progress

    def hear(event: Event) -> None:
        if isinstance(event, Progress):
            display.show(event)

    def on_bytes(disk: str, done: int, total: int) -> None:
        display.show(Progress(disk, done, total))

    if background_only:
        return await api.follow_policy(vm, hear, release_then=release)
    settled = await api.settle_guest(vm, None, on_bytes)
    return await api.release_guest(vm) if release else settled
