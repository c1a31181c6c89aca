"""Guests that have moved and come into trouble while no command works on them: who looks again and again tells."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from qemu_esd.hooks import HookEvent, Hooks, Subject
from qemu_esd.view import GuestView


@dataclass(frozen=True)
class Trouble:
    """What is wrong, as a sentence, and the command that tells more."""

    problem: str
    hint: str


def trouble_of(guest: GuestView) -> Trouble | None:
    """None of a guest that is well, or has never moved."""
    if not guest.committed:
        return None
    hint = f"qemu-esd status {shlex.quote(guest.vm)}"
    if guest.link == "down":
        return Trouble(f"{guest.vm} runs on {guest.host}, and {_upstream(guest)} does not answer it", hint)
    if guest.io_errors:
        return Trouble(f"{guest.vm} stands still on {guest.host}: {_reasons(guest)}", hint)
    return None


def _upstream(guest: GuestView) -> str:
    return guest.upstream[0] if guest.upstream else "its source"


def _reasons(guest: GuestView) -> str:
    words = {"nospace": "no space is left for"}
    return ", ".join(
        f"{words.get(why, 'a read or write has failed of')} {disk}" for disk, why in guest.io_errors.items()
    )


def news(before: Collection[str], guests: Sequence[GuestView]) -> Iterator[tuple[GuestView, Trouble | None]]:
    """Guests that are in trouble now and were not before, and those that are well again (None).

    One that cannot be looked at is left as it was.
    """
    for guest in guests:
        trouble = trouble_of(guest)
        if guest.run_state is not None and (trouble is None) == (guest.vm in before):
            yield guest, trouble


class Lookout:
    """Remembers who is in trouble, from one look to the next. What is so at the first look is news."""

    def __init__(self) -> None:
        self._troubled = frozenset[str]()

    async def hear(self, guests: Sequence[GuestView]) -> None:
        """Tell hooks what has changed; returns when they have ended."""
        changed = tuple(news(self._troubled, guests))
        self._troubled ^= {guest.vm for guest, _ in changed}
        for guest, trouble in changed:
            hooks = Hooks(
                Subject(guest.id, guest.vm, guest.upstream[0] if guest.upstream else guest.source, guest.host)
            )
            if trouble is None:
                hooks.tell(HookEvent.RECOVERED)
            else:
                hooks.tell(HookEvent.DEGRADED, trouble.problem, trouble.hint)
            await hooks.ended()
