"""What a migration was like, from its journal and its trail: phases, rates, stalls, what was where. Asks no host."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from qemu_esd import view
from qemu_esd.errors import UsageError
from qemu_esd.journal import lines, shelf, store, trail
from qemu_esd.model.plan import Plan
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Entered, Entry, Held, Measured, Planned, Released, State
from qemu_esd.model.trail import Marked, Remark, Snapshot, Versions

# Nothing that came for so long is worth a word.
STALL_SECONDS = 2.0


@dataclass(frozen=True)
class Phase:
    """From `began` to `ended`, in seconds since the command began; `ended` None: it goes on, or was broken off."""

    name: str
    began: float
    ended: float | None


@dataclass(frozen=True)
class Point:
    """`rate` bytes/s at `seconds` since the command began."""

    seconds: float
    rate: float


@dataclass(frozen=True)
class Stall:
    """Of `what` nothing came from `began` on for `took` seconds."""

    what: str
    began: float
    took: float


@dataclass(frozen=True)
class Said:
    """A remark, at `seconds` since the command began."""

    seconds: float
    level: str
    text: str


@dataclass(frozen=True)
class Step:
    """A step of the command, by a trace: `began` and `took` in seconds, since that process began."""

    name: str
    began: float
    took: float


@dataclass(frozen=True)
class Report:
    """All of it. `began` in seconds since 1970, by the controller's clock; `figures` in ms by name."""

    plan: Plan
    state: State
    began: float
    figures: dict[str, float]
    phases: tuple[Phase, ...]
    samples: dict[str, tuple[tuple[float, Progress], ...]]
    stalls: tuple[Stall, ...]
    snapshots: tuple[tuple[float, Snapshot], ...]
    said: tuple[Said, ...]
    versions: Versions | None
    events: tuple[tuple[float, str], ...]
    steps: tuple[Step, ...] = ()


def of(word: str, trace: Path | None = None) -> Report:
    """Of the migration of that id, or the newest of that guest. Raises RefusedError, UsageError."""
    steps = tuple(read_steps(trace)) if trace is not None else ()
    story = shelf.find(word)
    return told(story, lines.times(store.path_of(story.plan.id)), trail.read(story.plan.id), steps)


def told(story: store.Story, times: Sequence[float], marked: Iterable[Marked], steps: tuple[Step, ...] = ()) -> Report:
    figures = view.figures_of(story)
    # The plan is written down when it is made.
    began = times[0] - figures.get("planned", 0.0) / 1000
    entries = [(time - began, entry) for time, entry in zip(times, story.entries, strict=False)]
    marks = [(each.time - began, each.mark) for each in marked]
    samples = _samples(marks)
    return Report(
        plan=story.plan,
        state=story.state,
        began=began,
        figures=figures,
        phases=tuple(_phases(entries)),
        samples=samples,
        stalls=tuple(stall for what, row in samples.items() for stall in stalls(what, row)),
        snapshots=tuple((seconds, mark) for seconds, mark in marks if isinstance(mark, Snapshot)),
        said=tuple(Said(seconds, mark.level, mark.text) for seconds, mark in marks if isinstance(mark, Remark)),
        versions=next((mark for _, mark in reversed(marks) if isinstance(mark, Versions)), None),
        events=tuple((seconds, _event(entry)) for seconds, entry in entries),
        steps=steps,
    )


# What begins when a state is entered, or when a figure is there; "" is a time in which nothing of ours happens.
_BEGINS: dict[State | str, str] = {
    State.PREPARING: "prepare",
    "prepared": "memory",
    State.SWITCHING: "switchover",
    State.RUNNING: "handover",
    State.HANDED_OVER: "",
    State.SETTLING: "settle",
    State.SETTLED: "",
    State.RELEASED: "",
    State.ROLLED_BACK: "",
    State.DISCARDING: "discard",
    State.DISCARDED: "",
}


def _phases(entries: Sequence[tuple[float, Entry]]) -> Iterator[Phase]:
    now, since = "plan", 0.0
    for seconds, entry in entries:
        key = entry.state if isinstance(entry, Entered) else entry.name if isinstance(entry, Measured) else None
        if key in _BEGINS:
            if now:
                yield Phase(now, since, seconds)
            now, since = _BEGINS[key], seconds
    if now:
        yield Phase(now, since, None)


def _samples(marks: Iterable[tuple[float, object]]) -> dict[str, tuple[tuple[float, Progress], ...]]:
    found: dict[str, list[tuple[float, Progress]]] = {}
    for seconds, mark in marks:
        if isinstance(mark, Progress):
            found.setdefault(mark.what, []).append((seconds, mark))
    return {what: tuple(row) for what, row in found.items()}


def rates(row: Sequence[tuple[float, Progress]]) -> tuple[Point, ...]:
    """How fast it was between two samples each; a step back (another command began anew) is none."""
    return tuple(
        Point(now, (sample.done - before.done) / (now - then))
        for (then, before), (now, sample) in pairwise(row)
        if now > then and sample.done >= before.done
    )


def stalls(what: str, row: Sequence[tuple[float, Progress]]) -> Iterator[Stall]:
    """Times in which nothing came, although something was left. One that no sample ends is none: we had gone."""
    since: float | None = None
    for (then, before), (now, sample) in pairwise(row):
        still = sample.done == before.done and sample.done < sample.total
        if still and since is None:
            since = then
        if not still and since is not None:
            if then - since >= STALL_SECONDS:
                yield Stall(what, since, then - since)
            since = None
        if still and (now, sample) == row[-1] and since is not None and now - since >= STALL_SECONDS:
            yield Stall(what, since, now - since)


def _event(entry: Entry) -> str:
    match entry:
        case Planned():
            return "planned"
        case Entered(state):
            return f"state: {state}"
        case Measured(name, ms):
            return f"{name}: {ms:.1f} ms"
        case Held(resource):
            return f"about to make: {type(resource).__name__} on {resource.host}"
        case Released(resource):
            return f"released: {type(resource).__name__} on {resource.host}"


def read_steps(path: Path) -> Iterator[Step]:
    """The steps in a trace that `--trace FILE` has written. Raises UsageError for a file that is none."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
        found = [Step(row["name"], row["ts"] / 1e6, row["dur"] / 1e6) for row in rows if row.get("cat") == "step"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{path} is no trace: {error}"
        raise UsageError(what, hint="one is written by: qemu-esd --trace FILE migrate ...") from error
    yield from sorted(found, key=lambda step: step.began)
