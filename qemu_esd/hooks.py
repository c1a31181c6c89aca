"""Programs of the user's that are told of events: `hooks/EVENT` in our configuration folder, and `hooks/EVENT.d/*`.

Each gets one JSON object on stdin. They run one after another, beside a migration and never in its way: one that fails,
or is not done in time, is warned of and left behind.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import platformdirs

from qemu_esd.errors import EsdError, UnfinishedError
from qemu_esd.hosts.local import LocalHost
from qemu_esd.log import logger
from qemu_esd.model.plan import Plan
from qemu_esd.model.record import State
from qemu_esd.phases.context import Event, Reporter

# Then a hook is killed.
HOOK_SECONDS = 10.0


class HookEvent(StrEnum):
    """What hooks are told of; `docs/asking.md` says when."""

    PLANNED = "planned"
    SWITCHED = "switched"
    HANDED_OVER = "handed-over"
    SETTLED = "settled"
    DEGRADED = "degraded"
    RECOVERED = "recovered"
    FAILED = "failed"


_OF_STATES = {
    State.PREPARING: HookEvent.PLANNED,
    State.RUNNING: HookEvent.SWITCHED,
    State.HANDED_OVER: HookEvent.HANDED_OVER,
    State.SETTLED: HookEvent.SETTLED,
}


@dataclass(frozen=True)
class Subject:
    """The migration that is told of."""

    migration: str | None
    vm: str
    source: str | None
    target: str


def subject_of(plan: Plan) -> Subject:
    return Subject(plan.id, plan.vm, plan.source.host, plan.target.host)


def folder() -> Path:
    """Where the user puts them."""
    named = os.environ.get("QEMU_ESD_CONFIG")
    return (Path(named) if named else Path(platformdirs.user_config_dir("qemu-esd"))) / "hooks"


def hooks_of(event: HookEvent) -> list[Path]:
    """The programs to be told, in order."""
    one, more = folder() / event.value, folder() / f"{event.value}.d"
    return [path for path in (one, *(sorted(more.iterdir()) if more.is_dir() else ())) if path.is_file()]


class Hooks:
    """Tells of one migration. `tell` returns at once; `ended` waits for what is still told, within its bounds."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._last: asyncio.Task[None] | None = None
        self.state: State | None = None

    def tell(self, event: HookEvent, problem: str | None = None, hint: str | None = None) -> None:
        """Have the hooks of `event` told, after those of the events before it."""
        try:
            those = hooks_of(event)
        except OSError as error:
            logger.warning("hooks cannot be looked for", folder=str(folder()), why=str(error))
            return
        if those:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            message = {"event": event.value, "time": now, **asdict(self._subject), "problem": problem, "hint": hint}
            self._last = asyncio.ensure_future(_tell_all(self._last, those, json.dumps(message).encode()))

    async def ended(self) -> None:
        if self._last is not None:
            await asyncio.wait({self._last})


async def _tell_all(before: asyncio.Task[None] | None, hooks: list[Path], message: bytes) -> None:
    if before is not None:
        await asyncio.wait({before})
    for hook in hooks:
        if why := await _tell_one(hook, message):
            logger.warning("a hook failed", hook=str(hook), why=why)


async def _tell_one(hook: Path, message: bytes) -> str | None:
    """What went wrong, if anything."""
    try:
        if hook.stat().st_mode & 0o022:
            return "others may change it, so it is not run: chmod go-w"
        # With all that it has started: timeout(1) makes a process group of them, and ends with 124.
        done = await LocalHost().attempt(("timeout", "-k", "1", f"{HOOK_SECONDS:g}", str(hook)), message)
    except (EsdError, OSError) as error:
        return str(error)
    if done.status in (124, 137):
        return f"it was not done within {HOOK_SECONDS:g} s, and was killed"
    last = done.stderr.strip().rpartition("\n")[2]
    return f"it ended with status {done.status}: {last}" if done.status else None


@asynccontextmanager
async def telling(subject: Subject, report: Reporter) -> AsyncIterator[Reporter]:
    """A reporter that also tells hooks; errors that leave the context are told as "degraded" or "failed"."""
    hooks = Hooks(subject)
    try:
        yield _both(report, hooks)
    except UnfinishedError as error:
        hooks.tell(HookEvent.DEGRADED, str(error), error.hint)
        raise
    except EsdError as error:
        hooks.tell(HookEvent.FAILED, str(error), error.hint)
        raise
    except asyncio.CancelledError:
        if hooks.state is State.ROLLED_BACK:
            hooks.tell(HookEvent.FAILED, "interrupted, and rolled back")
        raise
    finally:
        # A second Ctrl-C ends the waiting; hooks are bounded anyway.
        await hooks.ended()


def _both(report: Reporter, hooks: Hooks) -> Callable[[Event], None]:
    def tell(event: Event) -> None:
        report(event)
        if isinstance(event, State):
            hooks.state = event
            if event in _OF_STATES:
                hooks.tell(_OF_STATES[event])

    return tell
