"""How a migration goes, on stderr: bars at a terminal, one line per change elsewhere."""

from __future__ import annotations

import time
from typing import IO, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from qemu_esd.cli import render
from qemu_esd.log import Format, logger
from qemu_esd.model.plan import Plan
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Measured, State
from qemu_esd.units import human_bytes, human_seconds

Event = State | Measured | Progress
# Without bars: a line for every tenth of the way.
STEPS = 10


class Display(Protocol):
    """Shows lines and progress. Never raises: a terminal that has gone away breaks no migration off."""

    def say(self, line: str) -> None: ...
    def show(self, progress: Progress) -> None: ...
    def clear(self, of: str = "") -> None:
        """What was shown of a phase is over: all whose names begin with `of`."""
        ...

    def close(self) -> None: ...


def display_for(stream: IO[str]) -> Display:
    """Where log lines are JSON, states and figures are such lines, and nothing else is shown."""
    if logger.format is Format.JSON:
        return NoDisplay()
    return BarDisplay(stream) if stream.isatty() else LineDisplay(stream)


class NoDisplay:
    """Shows nothing."""

    def say(self, line: str) -> None: ...
    def show(self, progress: Progress) -> None: ...
    def clear(self, of: str = "") -> None: ...
    def close(self) -> None: ...


def tell(display: Display, event: Event, plan: Plan) -> None:
    """Show what the engine says of a migration."""
    if isinstance(event, Progress):
        display.show(event)
        return
    if isinstance(event, Measured):
        display.clear()
    if line := line_of(event, plan):
        display.say(line)


def line_of(event: State | Measured, plan: Plan) -> str | None:
    """A state or a figure of a migration in words."""
    return words_of(event, plan.vm, plan.source.host, plan.target.host)


def words_of(event: State | Measured, vm: str, source: str, target: str) -> str | None:
    """None for those that say nothing to a user."""
    match event:
        case State.PREPARING:
            return f"preparing {source} and {target}"
        case State.SETTLING:
            return f"moving the data of {vm} to {target}"
        case State.SETTLED:
            return f"settled: {vm} does not need {source} any more"
        case State.ROLLED_BACK:
            return f"rolled back: {vm} runs on {source} as before"
        case State.DISCARDING:
            return f"giving up what {vm} has on {target}: it starts on {source} again"
        case Measured("prepared", ms):
            return f"prepared after {human_seconds(ms / 1000)}"
        case Measured("precopy", ms):
            return f"memory moved after {human_seconds(ms / 1000)}"
        case Measured("downtime", ms):
            return f"switched over: {vm} runs on {target}, and stood still for {human_seconds(ms / 1000)}"
        case Measured("handed-over", ms):
            return f"handed over after {human_seconds(ms / 1000)}: the QEMU on {source} has ended"
    return None


class LineDisplay:
    """For a log or a pipe."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._steps = Steps()

    def say(self, line: str) -> None:
        with render.reader_may_leave(self._stream):
            print(render.printable(line), file=self._stream)

    def show(self, progress: Progress) -> None:
        if line := self._steps.line_of(progress, time.monotonic()):
            self.say(line)

    def clear(self, of: str = "") -> None:
        pass

    def close(self) -> None:
        pass


class Steps:
    """Which progress is worth a line: the first of each thing, and every further tenth of it that is reached."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, int]] = {}
        self._shown: dict[str, int] = {}

    def line_of(self, now: Progress, seconds: float) -> str | None:
        """`seconds` by any steady clock."""
        if now.total == 0:
            return None
        step = STEPS * now.done // now.total
        if step <= self._shown.get(now.what, -1):
            return None
        self._shown[now.what] = step
        began, done = self._begun.setdefault(now.what, (seconds, now.done))
        rate = (now.done - done) / (seconds - began) if seconds > began else 0.0
        return progress_line(now, rate)


def progress_line(now: Progress, rate: float) -> str:
    """Bytes, and where they are known the rate (bytes/s) and the time that is left."""
    percent = 100 * now.done // now.total
    words = f"{now.what}  {percent:3} %  {human_bytes(now.done)} of {human_bytes(now.total)}"
    if rate <= 0:
        return words
    left = max(now.total - now.done, 0) / rate
    words += f"  {human_bytes(rate)}/s" + (f"  {human_seconds(left)} left" if left else "")
    return f"{words}  {about}" if (about := about_memory(now)) else words


def about_memory(now: Progress) -> str:
    """Whether it comes to its end: how fast the guest writes to it, and for how long it would stand still now."""
    words = [f"the guest writes {human_bytes(now.dirty_rate)}/s"] if now.dirty_rate is not None else []
    words += [f"would stand still for {human_seconds(now.downtime_ms / 1000)}"] if now.downtime_ms is not None else []
    return ", ".join(words)


class BarDisplay:
    """For a terminal. It is redrawn only when there is news, so no thread of it can fail on its own."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._tasks: dict[str, TaskID] = {}
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[about]}"),
            console=Console(file=stream, highlight=False),
            auto_refresh=False,
            transient=True,
        )

    def say(self, line: str) -> None:
        with render.reader_may_leave(self._stream):
            self._bars.start()
            self._bars.console.print(render.printable(line), markup=False, soft_wrap=True)

    def show(self, progress: Progress) -> None:
        what = progress.what
        with render.reader_may_leave(self._stream):
            self._bars.start()
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(render.printable(what), total=None, about="")
            # Of nothing it would be drawn as all.
            done, total, about = progress.done, progress.total or None, about_memory(progress)
            self._bars.update(self._tasks[what], completed=done, total=total, about=about, refresh=True)

    def clear(self, of: str = "") -> None:
        for what in [what for what in self._tasks if what.startswith(of)]:
            self._bars.remove_task(self._tasks.pop(what))
        with render.reader_may_leave(self._stream):
            self._bars.refresh()

    def close(self) -> None:
        with render.reader_may_leave(self._stream):
            self._bars.stop()
