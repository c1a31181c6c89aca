"""`qemu-esd settle`: bring over what is left."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from qemu_esd.cli import complete, several
from qemu_esd.cli.running import run
from qemu_esd.errors import EsdError, UnfinishedError

if TYPE_CHECKING:
    from qemu_esd.cli.render_progress import Display, Event
    from qemu_esd.view import GuestView


def settle(
    vms: complete.Vms,
    background_only: Annotated[
        bool, typer.Option("--background-only", help="Only what the policy moves by itself: no on-demand, no redirect.")
    ] = False,
    release: Annotated[
        bool, typer.Option("--release", help="Let the source forget a guest when nothing needs it any more.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Bring over what is left, flush, verify, cut the link to the source. Several guests side by side."""
    import asyncio

    from qemu_esd.cli.render_progress import display_for

    display = display_for(sys.stderr)
    if sys.stderr.isatty():
        display.say(f"looking at {', '.join(vms)}")
    try:
        seen = run(_settle(vms, background_only, release, display))
    except asyncio.CancelledError:
        words = f"stopped: {', '.join(vms)} run where they did, and QEMU's own jobs go on moving their data"
        if len(vms) == 1:
            words = f"stopped: {vms[0]} runs where it did, and QEMU's own job goes on moving its data"
        hint = f"qemu-esd settle {'--background-only ' if background_only else ''}{shlex.join(vms)}"
        raise UnfinishedError(words, hint=hint) from None
    finally:
        display.close()
    several.tell(seen, as_json=as_json)


async def _settle(vms: list[str], background_only: bool, release: bool, display: Display) -> list[GuestView | EsdError]:
    from qemu_esd import api
    from qemu_esd.model.progress import Progress

    def name(vm: str, disk: str) -> str:
        return disk if len(vms) == 1 else f"{vm} {disk}"

    async def one(vm: str) -> GuestView:
        def on_bytes(disk: str, done: int, total: int) -> None:
            display.show(Progress(name(vm, disk), done, total))

        def hear(event: Event) -> None:
            if isinstance(event, Progress):
                on_bytes(event.what, event.done, event.total)

        if background_only:
            return await api.follow_policy(vm, hear, release_then=release)
        settled = await api.settle_guest(vm, None, on_bytes)
        return await api.release_guest(vm) if release else settled

    return await several.side_by_side(vms, one)
