"""Guests as lines: one each, of 80 columns, for a table and for a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qemu_esd.cli.render import printable, whole_line
from qemu_esd.cli.render_status import BAD_STATES, STATES
from qemu_esd.model.record import State
from qemu_esd.model.vm import LET_RUN, Kind
from qemu_esd.units import human_bytes, short_bytes, short_seconds
from qemu_esd.view import GuestView

BAR = 10
_LOCAL, _REMOTE, _HOLE, _UNKNOWN = "█", "░", "·", "?"
_COLOURS = {_LOCAL: "green", _REMOTE: "bright_blue", _HOLE: "bright_black", _UNKNOWN: "yellow"}
# Names get what is left of the width, that of the guest first; but never less.
_HOST, _LEAST = 10, 8


_HEADINGS = tuple(Text(word) for word in ("guest", "on", "policy", "data", "left", "link", "moves", "next"))


@dataclass(frozen=True)
class Amounts:
    """Bytes of all disks of a guest."""

    local: int
    remote: int
    hole: int


def amounts(guest: GuestView) -> Amounts | None:
    """None where it is not known of every disk."""
    local, remote = 0, 0
    for disk in guest.disks:
        if disk.local_bytes is None or disk.remote_bytes is None:
            return None
        local, remote = local + disk.local_bytes, remote + disk.remote_bytes
    return Amounts(local, remote, max(sum(disk.virtual_bytes for disk in guest.disks) - local - remote, 0))


def bar(held: Amounts | None) -> Text:
    """What is where, in BAR cells. Whatever there is has a cell at least."""
    text = Text()
    for symbol, count in zip((_LOCAL, _REMOTE, _HOLE), _cells(held), strict=True) if held else ((_UNKNOWN, BAR),):
        text.append(symbol * count, _COLOURS[symbol])
    return text


def _cells(held: Amounts) -> list[int]:
    parts = (held.local, held.remote, held.hole)
    counts = [max(1, part * BAR // sum(parts)) if part else 0 for part in parts]
    largest = parts.index(max(parts))
    counts[largest] += BAR - sum(counts)
    return counts if any(parts) else [0, 0, BAR]


def move(guest: GuestView, rate: int | None) -> str:
    """What is under way: memory, a background move, or what `rate` (bytes/s) tells; or why it stands still."""
    if guest.memory is not None and guest.memory.total:
        return f"memory {100 * guest.memory.done // guest.memory.total}%"
    if guest.run_state not in (None, "running"):
        return str(guest.run_state)
    job, held = guest.job, amounts(guest)
    if job is not None and job.total:
        return _pace(job.done, job.total, job.rate)
    if rate and held is not None and held.remote:
        return _pace(held.local, held.local + held.remote, rate)
    return guest.state if guest.state in (State.PREPARING, State.SWITCHING, State.SETTLING) else ""


def _pace(done: int, total: int, rate: int) -> str:
    percent = f"{100 * done // total}%"
    return f"{percent} {short_bytes(rate)}/s {short_seconds((total - done) / rate)}" if rate > 0 else percent


def next_word(guest: GuestView) -> str:
    """What has to be done next, in a word or two; mostly the command."""
    journal = guest.journal
    if guest.problem is not None and journal is not None and "resume" in guest.problem:
        return "resume"
    if guest.state in BAD_STATES:
        return "look"
    if guest.state == "shut off":
        return "start" if guest.problem else ""
    if "nospace" in guest.io_errors.values():
        return "room"
    if guest.run_state in ("paused", "io-error") and guest.link != "down":
        return LET_RUN[Kind.DOMAIN] if guest.kind is Kind.DOMAIN else "cont"
    if guest.link == "down" or (journal is not None and journal.at_work):
        return "wait"
    if guest.upstream:
        return "settle"
    return "release" if guest.left_behind else ""


def policy(guest: GuestView) -> str:
    """The policy of its disks, or the state of a guest of which no disk is known."""
    if guest.state in BAD_STATES or not guest.disks:
        return STATES.get(guest.state, guest.state)
    found = {disk.handler for disk in guest.disks}
    return found.pop() if len(found) == 1 else "mixed"


def table(guests: Sequence[GuestView], rates: Mapping[str, int], width: int) -> RenderableType:
    """A line for each guest, and what is wrong with some of them below. `rates`: bytes/s that were seen, by guest."""
    rows = [_row(guest, rates.get(guest.vm)) for guest in guests]
    widths = [max(text.cell_len for text in column) for column in zip(_HEADINGS, *rows, strict=True)]
    names = _names(widths[0], widths[1], width - sum(widths[2:]) - len(_HEADINGS))
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for place, heading in enumerate(_HEADINGS):
        right = heading.plain == "left"
        drawn.add_column(heading, no_wrap=True, max_width=names.get(place), justify="right" if right else "left")
    for row in rows:
        drawn.add_row(*row)
    problems = (whole_line(_problem(guest), "yellow") for guest in guests if guest.problem)
    return Group(drawn, *problems)


def _problem(guest: GuestView) -> str:
    return f"{guest.vm}: {guest.problem}"


def rows(guest: GuestView, width: int) -> int:
    """How many rows of a screen a guest takes in the table."""
    return 1 + (-(-len(_problem(guest)) // width) if guest.problem else 0)


def _names(guest: int, host: int, room: int) -> dict[int, int]:
    """How wide the first two columns may be, of what they want and of the room that they have together."""
    host = min(host, max(_HOST, room - guest))
    return {0: max(room - host, _LEAST), 1: host}


def _row(guest: GuestView, rate: int | None) -> tuple[Text, ...]:
    held = amounts(guest) if guest.disks else None
    bad = guest.state in BAD_STATES
    stopped = guest.run_state not in (None, "running")
    return (
        Text(printable(guest.vm), "bold"),
        Text(guest.host),
        Text(policy(guest), "bold red" if bad else ""),
        bar(held) if guest.disks else Text(""),
        Text(short_bytes(held.remote) if held else ""),
        Text("" if guest.link == "none" else guest.link, "bold red" if guest.link == "down" else "green"),
        Text(move(guest, rate), "bold red" if stopped else ""),
        Text(next_word(guest), "yellow"),
    )


def line(guest: GuestView, rate: int | None) -> str:
    """The same for a log, in words."""
    held = amounts(guest) if guest.disks else None
    data = f"{human_bytes(held.local)} here, {human_bytes(held.remote)} left" if held else ""
    link = "" if guest.link == "none" else f"link {guest.link}"
    state = STATES.get(guest.state, guest.state)
    todo = f"next: {word}" if (word := next_word(guest)) else ""
    parts = (f"{guest.vm} on {guest.host}", state, policy(guest), data, link, move(guest, rate), todo, guest.problem)
    return printable(", ".join(dict.fromkeys(part for part in parts if part)))


def matters(guest: GuestView) -> tuple[object, ...]:
    """What of a guest is worth a new line in a log when it changes: of its data every further tenth."""
    held = amounts(guest)
    tenth = 10 * held.local // (held.local + held.remote) if held and held.remote else None
    memory = 10 * guest.memory.done // guest.memory.total if guest.memory and guest.memory.total else None
    return guest.host, guest.state, policy(guest), guest.link, guest.run_state, guest.problem, tenth, memory
