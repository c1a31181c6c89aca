"""Something falls silent at a moment of a migration, for a while or for good, and neither ends nor says so.

A row asserts: our command ends within a bound; never two copies; before the commit the guest runs on the source, as
before, also while the silence lasts; after it the guest goes on by itself, or does what `status` says leads there; its
load saw nothing wrong, what it had flushed is there; nothing is left over.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import pytest

from images.pattern import MIB
from qemu_esd.errors import EsdError
from qemu_esd.journal import shelf
from qemu_esd.model.plan import Transport
from qemu_esd.model.policy import Handler
from qemu_esd.phases import handover
from qemu_esd.phases.context import Context
from tests.faults import report
from tests.faults.hangs import SILENCES, Silence
from tests.faults.rows import MOMENTS, Outcome, What, led_by_status, marked_guest, marks
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import running_on

pytestmark = pytest.mark.lab

# A hang, not a slow machine: QEMU's own limits are a quarter of an hour.
BOUND_SECONDS = 200.0
WHILE_SECONDS = 10.0
GIVEN_AWAY = "given away"
FOR_GOOD, A_WHILE = "for good", "for 10 s"

CUT, FROM_SOURCE, FROM_TARGET = "link between the hosts cut", "link to the source cut", "link to the target cut"
SOURCE, TARGET, HANDLER = "SIGSTOP source QEMU", "SIGSTOP target QEMU", "SIGSTOP path handler"
SSHD = "SIGSTOP target's sshd"
OVER_SSH = f"{CUT}, over ssh"
EVERY = ("prepared", "memory moves", "stopped", GIVEN_AWAY, "committed", "handed over", "settling")
WHERE: dict[tuple[str, str], tuple[str, ...]] = {
    (CUT, A_WHILE): EVERY,
    (CUT, FOR_GOOD): EVERY,
    (OVER_SSH, FOR_GOOD): ("memory moves", "stopped"),
    (FROM_SOURCE, FOR_GOOD): ("memory moves", "committed"),
    (FROM_TARGET, FOR_GOOD): ("memory moves", "stopped", "committed"),
    (TARGET, A_WHILE): ("memory moves", "stopped", GIVEN_AWAY, "committed"),
    (TARGET, FOR_GOOD): ("prepared", "memory moves", "stopped", GIVEN_AWAY, "committed"),
    (SOURCE, A_WHILE): ("memory moves",),
    (SOURCE, FOR_GOOD): ("memory moves", "stopped", "committed"),
    (HANDLER, FOR_GOOD): ("prepared", "committed", "settling"),
    (SSHD, FOR_GOOD): ("memory moves", "committed"),
}
ROWS = [(silence, length, moment) for (silence, length), moments in WHERE.items() for moment in moments]
# Who has the guest is known to one who does not answer: it stands still until he does.
NOBODY_KNOWS = {
    (SOURCE, FOR_GOOD, "memory moves"),
    (SOURCE, FOR_GOOD, "stopped"),
    (FROM_SOURCE, FOR_GOOD, "stopped"),
    (FROM_TARGET, FOR_GOOD, "stopped"),
}
SAMPLE = {
    (TARGET, A_WHILE, "stopped"),
    (FROM_TARGET, FOR_GOOD, "memory moves"),
}
CHOSEN = ROWS if os.environ.get("ESD_FAULTS") == "all" else sorted(SAMPLE)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("silence", "length", "moment"), CHOSEN, ids=lambda word: word.replace(" ", "-"))
async def test_something_falls_silent(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, silence: str, length: str, moment: str
) -> None:
    guest, before = await marked_guest(fleet)
    with ExitStack() as ends:
        outcome = await migrate(fleet, guest, ends, monkeypatch, (silence, length, moment))
        story = shelf.newest_of("vm1")
        assert story is not None
        print(story.state, outcome)
        # That status is for what was refused before anything was touched.
        assert "(3)" not in outcome.said
        if not story.state.committed and (silence, length, moment) not in NOBODY_KNOWS:
            await guest.is_well()
    assert len(await running_on(fleet.machines, "vm1")) <= 1
    await led_by_status(fleet, guest, outcome)
    await guest.is_well()
    assert await running_on(fleet.machines, "vm1") == [guest.machine.name]
    assert await marks(guest) == before
    recovered = ", ".join(outcome.commands) or "nothing"
    report.note(report.Line(f"{silence} {length}", moment, outcome.said, recovered, guest.machine.name))
    await fleet.finish(guest)


async def migrate(
    fleet: Fleet, guest: Guest, ends: ExitStack, monkeypatch: pytest.MonkeyPatch, row: tuple[str, str, str]
) -> Outcome:
    """The migration with its fault, which lasts until `ends` is closed, or a while."""
    silence, length, moment = row
    outcome, begun = Outcome(), list[Silence]()

    def begin() -> None:
        if not begun:
            begun.append(SILENCES[silence.removesuffix(", over ssh")](fleet))
            ends.callback(begun[0].end)
            if length == A_WHILE:
                asyncio.get_running_loop().call_later(WHILE_SECONDS, begun[0].end)

    def hear(what: What) -> None:
        if moment in MOMENTS and MOMENTS[moment](what):
            begin()

    if moment == GIVEN_AWAY:
        monkeypatch.setattr(handover, "take_images", after(begin, handover.take_images))
    try:
        async with asyncio.timeout(BOUND_SECONDS):
            transport = Transport.SSH if silence == OVER_SSH else Transport.TLS
            await guest.migrate(fleet.b, Handler.BACKGROUND, report=hear, bandwidth=4 * MIB, transport=transport)
    except EsdError as error:
        outcome.said = f"{type(error).__name__} ({error.exit_status})"
        print(error, "|", error.hint)
    assert begun, "the moment never came"
    return outcome


def after(begin: Callable[[], None], act: Callable[[Context], Awaitable[None]]) -> Callable[[Context], Awaitable[None]]:
    async def both(ctx: Context) -> None:
        begin()
        await act(ctx)

    return both
