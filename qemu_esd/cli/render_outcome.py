"""The outcome of a migration, for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qemu_esd.cli.render import plain_table, printable, warning, whole_line
from qemu_esd.model.plan import Plan
from qemu_esd.model.record import State
from qemu_esd.phases.discard import DiskLoss, Loss
from qemu_esd.units import human_bytes, human_seconds
from qemu_esd.view import DiskView, MigrationView

# Figure of the journal: the word for the phase that ends there. Each is in ms since the start.
PHASES = {
    "planned": "planned",
    "prepared": "prepared",
    "precopy": "precopy",
    "resumed-after": "switchover",
    "handed-over": "handed over",
    "total": "settled",
}


def outcome(moved: MigrationView, figures: Mapping[str, float], *, goes_on: bool) -> RenderableType:
    """`figures` in ms by name; `goes_on`: its data is moved by a process of its own."""
    headline = Text.assemble((printable(moved.vm), "bold"), f" runs on {moved.target}, and was on {moved.source}")
    if moved.downtime_ms is not None:
        headline.append(f"; it stood still for {_time(moved.downtime_ms)}")
    settled = moved.state in (State.SETTLED, State.RELEASED)
    shown = {name: ms for name, ms in figures.items() if name != "total" or settled}
    return Group(headline, "", timeline(shown), "", disk_table(moved.disks), "", whole_line(next_step(moved, goes_on)))


def recovered(moved: MigrationView, plan: Plan) -> RenderableType:
    """What became of a migration that was broken off, or whose target was given up."""
    if moved.state in (State.DISCARDING, State.DISCARDED):
        return Group(*(whole_line(line) for line in _discarded(moved, plan)))
    if not moved.committed:
        return whole_line(f"{printable(moved.vm)} is on {moved.source} as before, and nothing is left over.")
    headline = Text.assemble((printable(moved.vm), "bold"), f" runs on {moved.target}, and was on {moved.source}")
    return Group(headline, "", disk_table(moved.disks), "", whole_line(next_step(moved, goes_on=False)))


def _discarded(moved: MigrationView, plan: Plan) -> Iterator[str]:
    vm = printable(moved.vm)
    if plan.guest.ours:
        yield f"{vm} runs on {moved.source}, started from its disks as of the switchover."
    else:
        yield f"The disks of {vm} on {moved.source} have their names again, as of the switchover. Start it as before:"
        yield f"  {shlex.join(plan.guest.process.argv)}"
    if moved.state == State.DISCARDING:
        yield f"{moved.target} has not been told; when it is back: qemu-esd resume {moved.id}"
    else:
        yield f"{moved.target} has put its disks aside; to delete them: qemu-esd release {shlex.quote(moved.vm)}"


def losses(plan: Plan, loss: Loss) -> RenderableType:
    """What `rollback --discard-target` gives up, loudly."""
    since = f" since {loss.since}" if loss.since else ""
    head = warning(
        f"what {printable(plan.vm)} has done on {plan.target.host}{since} is given up: its memory, and of its disks"
    )
    return Group(head, *(whole_line(f"  {_lost(disk, plan)}") for disk in loss.disks))


def _lost(disk: DiskLoss, plan: Plan) -> str:
    if disk.stays:
        return f"{disk.disk}: nothing, all its writes are on {plan.source.host}"
    if disk.bytes is None:
        return f"{disk.disk}: all it has written; {plan.target.host} cannot be asked how much that is"
    read = ", with what it has only read" if disk.copies else ""
    return f"{disk.disk}: at most {human_bytes(disk.bytes)}{read}"


def timeline(figures: Mapping[str, float]) -> Table:
    """When each phase ended, and how long it took."""
    table = plain_table("phase", "ended after", "took", "", right=("ended after", "took"))
    before = 0.0
    for name, word in PHASES.items():
        if name in figures:
            stop = f"the guest stood still for {_time(figures['downtime'])}" if word == "switchover" else ""
            table.add_row(word, _time(figures[name]), _time(figures[name] - before), stop)
            before = figures[name]
    return table


def _time(ms: float) -> str:
    return human_seconds(ms / 1000)


def disk_table(disks: Iterable[DiskView]) -> Table:
    """Where the data of each disk is."""
    table = plain_table("disk", "policy", "here", "on the source", "size", right=("here", "on the source", "size"))
    for disk in disks:
        here, there = bytes_or_unknown(disk.local_bytes), bytes_or_unknown(disk.remote_bytes)
        table.add_row(printable(disk.disk), disk.handler, here, there, human_bytes(disk.virtual_bytes))
    return table


def bytes_or_unknown(count: int | None) -> str:
    return "?" if count is None else human_bytes(count)


def next_step(moved: MigrationView, goes_on: bool) -> str:
    """What is left, and the command for it."""
    vm = shlex.quote(moved.vm)
    if moved.state == State.RELEASED:
        return f"{moved.source} has forgotten it."
    if moved.state == State.SETTLED:
        return f"{moved.source} has put its images aside; to delete them: qemu-esd release {vm}"
    if goes_on and any(disk.handler in ("background", "miss") for disk in moved.disks):
        return f"Its data moves on by itself; to see how far it is: qemu-esd status {vm}"
    return f"It needs {moved.source} for what it has not got; to bring all of it over: qemu-esd settle {vm}"
