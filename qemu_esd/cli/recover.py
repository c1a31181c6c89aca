"""`qemu-esd resume` and `qemu-esd rollback`: what becomes of a migration that was broken off."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import run
from qemu_esd.errors import RefusedError, RolledBackError, UnfinishedError, UsageError

if TYPE_CHECKING:
    from qemu_esd.journal.store import Story
    from qemu_esd.model.plan import Plan
    from qemu_esd.model.recovery import Wish
    from qemu_esd.phases.discard import Loss
    from qemu_esd.view import MigrationView

Word = Annotated[
    str | None,
    typer.Argument(
        metavar="[ID|VM]",
        help="A migration, or its guest; needed where there are several.",
        autocompletion=complete.migrations,
        callback=complete.one_line,
    ),
]
Lost = Annotated[
    list[str] | None,
    typer.Option(
        "--force-lost",
        metavar="HOST",
        help="Your word that HOST is dead and will not come back as it was.",
        autocompletion=complete.hosts,
        callback=complete.each_host,
    ),
]
Discard = Annotated[
    bool,
    typer.Option(
        "--discard-target", help="The target is dead: start the guest on the source again, as of the switchover."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing.")]
Host = Annotated[
    str | None,
    typer.Option(
        metavar="HOST",
        help="A host of it: for a migration that a controller has begun which is lost.",
        autocompletion=complete.hosts,
        callback=complete.each_host,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def resume(word: Word = None, host: Host = None, force_lost: Lost = None, as_json: Json = False) -> None:
    """Go on with a migration that was broken off, or start a guest again whose QEMU has ended."""
    from qemu_esd.model.record import State
    from qemu_esd.model.recovery import Wish

    told = _recover(_story(word, host, Wish.ON, force_lost or []), Wish.ON, force_lost or [], as_json, yes=True)
    if not told.committed and told.state not in (State.DISCARDING, State.DISCARDED):
        what = f"{told.vm} could not go on to {told.target}, and is on {told.source} as before"
        raise RolledBackError(what, hint=f"qemu-esd migrate {told.vm} {told.target} --policy ...")


def rollback(
    word: Word = None,
    host: Host = None,
    force_lost: Lost = None,
    discard_target: Discard = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Undo a migration that was broken off before its commit: the guest is where it was, and nothing is left over.

    With --discard-target also after it, where the target is dead: what the guest has done there is lost.
    """
    from qemu_esd.model.recovery import Wish

    wish = Wish.DISCARD if discard_target else Wish.BACK
    _recover(_story(word, host, wish, force_lost or []), wish, force_lost or [], as_json, yes)


def _story(word: str | None, host: str | None, wish: Wish, lost: list[str]) -> Story:
    from qemu_esd import api

    if host is None:
        return api.broken_off(word)
    if word is None:
        raise UsageError("--host needs to know what was broken off there", hint="name the guest, or the migration")
    return run(api.adopt(word, host, wish, lost), f"asking {host} what it knows of {word}")


def _recover(story: Story, wish: Wish, lost: list[str], as_json: bool, yes: bool) -> MigrationView:
    import asyncio

    from qemu_esd import api
    from qemu_esd.cli.render_outcome import recovered
    from qemu_esd.cli.render_progress import Event, display_for, tell

    display = display_for(sys.stderr)

    def hear(event: Event) -> None:
        tell(display, event, story.plan)

    async def agree(loss: Loss) -> bool:
        return await _agree(story.plan, loss, yes, as_json)

    if sys.stderr.isatty():
        display.say(f"looking at {story.plan.source.host} and {story.plan.target.host}")
    try:
        told = run(api.recover(story, wish, hear, lost, agree))
    except asyncio.CancelledError:
        raise UnfinishedError("stopped; nothing is lost", hint="see how far it is: qemu-esd status") from None
    finally:
        display.close()
    if as_json:
        render.show_json(dataclasses.asdict(told))
    else:
        render.show(recovered(told, story.plan))
    return told


async def _agree(plan: Plan, loss: Loss, yes: bool, as_json: bool) -> bool:
    """Say loudly what is given up. Without somebody to ask, --yes is the answer."""
    from qemu_esd.cli import asking
    from qemu_esd.cli.render_outcome import losses

    render.note(losses(plan, loss))
    if yes:
        return True
    if as_json or not asking.somebody_is_there():
        raise RefusedError("nobody is there to be asked, and nothing was changed", hint="if that is meant, add: --yes")
    return await asking.answered_yes(f"Give that up, and start {plan.vm} on {plan.source.host}? [y/N] ")
