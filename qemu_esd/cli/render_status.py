"""A guest as it is now, for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from qemu_esd.cli.render import plain_table, printable, whole_line
from qemu_esd.cli.render_outcome import disk_table
from qemu_esd.model.pace import AUTO, Bandwidth
from qemu_esd.model.record import State
from qemu_esd.model.vm import LET_RUN, Kind
from qemu_esd.units import human_bytes, human_seconds
from qemu_esd.view import GuestView, JobView, MemoryView

STATES = {
    "local": "never moved",
    State.HANDED_OVER: "handed over",
    State.ROLLED_BACK: "rolled back",
}
_COLOURS = {"up": "green", "down": "bold red"}
BAD_STATES = ("unreachable", "lost", "busy", "unknown")


def guest_picture(guest: GuestView) -> RenderableType:
    """Name, host, state; its disks; what moves; what is left to do."""
    parts: list[RenderableType] = [_headline(guest)]
    if guest.disks:
        parts.append(Padding(disk_table(guest.disks), (0, 0, 0, 2)))
    parts += [whole_line(f"  {line}") for line in _remarks(guest)]
    if guest.problem:
        parts.append(whole_line(f"  {guest.problem}", "yellow"))
    return Group(*parts)


def guest_page(guest: GuestView, rate: int | None = None) -> RenderableType:
    """The same with all that is known besides: hosts and ports, generation, journal, what has gone wrong.

    `rate`: how fast its data comes, where that was seen (bytes/s).
    """
    parts: list[RenderableType] = [guest_picture(guest), *(whole_line(f"  {line}") for line in _more(guest, rate))]
    if len(guest.hosts) > 1:
        parts.append(Padding(_host_table(guest), (0, 0, 0, 2)))
    if guest.journal and guest.journal.errors:
        parts.append(whole_line("  the last errors:"))
        parts += [whole_line(f"    {error}", "yellow") for error in guest.journal.errors]
    return Group(*parts)


def _more(guest: GuestView, rate: int | None) -> Iterator[str]:
    left = sum(disk.remote_bytes or 0 for disk in guest.disks)
    if rate and left and not guest.job:
        yield f"data comes at {human_bytes(rate)}/s, {human_seconds(left / rate)} left at that"
    if guest.memory is not None:
        yield memory_line(guest.memory)
    if guest.journal is not None:
        work = ", somebody is at work on it" if guest.journal.at_work else ""
        id = guest.journal.id
        yield f"migration {id}: {guest.journal.state}{work}; how it went: qemu-esd report {id}"
    elif guest.id is not None:
        yield f"migration {guest.id}, of which no journal is here"
    if guest.generation:
        yield f"it has moved {guest.generation} times" if guest.generation > 1 else "it has moved once"


def memory_line(memory: MemoryView) -> str:
    """How far the memory is, and how likely it comes to its end."""
    line = f"moving memory: {human_bytes(memory.done)} of {human_bytes(memory.total)}"
    if memory.dirty_rate is not None:
        line += f", the guest writes {human_bytes(memory.dirty_rate)}/s"
    return (
        line
        if memory.downtime_ms is None
        else f"{line}, would stand still for {human_seconds(memory.downtime_ms / 1000)}"
    )


_ROLES = {"runs": "runs it", "serves": "serves data of it", "keeps": "keeps its former images"}
_TRANSPORTS = {"tls": "TLS", "tcp": "unencrypted", "ssh": "ssh"}


def _host_table(guest: GuestView) -> Table:
    table = plain_table("host", "", "since migration", "by", "port")
    # A name is looked for, and copied: other columns give way.
    table.columns[0].no_wrap = True
    for each in guest.hosts:
        address, _, port = (each.address or "").rpartition(":") if each.transport != "ssh" else ("", "", "")
        way = _TRANSPORTS[each.transport] + (f" to {address}" if address else "") if each.transport else ""
        table.add_row(each.host, _ROLES[each.role], each.migration or "", way, port)
    return table


def _headline(guest: GuestView) -> Text:
    state = STATES.get(guest.state, guest.state)
    text = Text.assemble((printable(guest.vm), "bold"), f"  {guest.host}  ")
    text.append(state, "bold red" if guest.state in BAD_STATES else "")
    if guest.source and guest.state != "local":
        text.append(f", from {guest.source}")
    if guest.link != "none":
        text.append_text(Text.assemble(", link ", (guest.link, _COLOURS.get(guest.link, ""))))
    if guest.link_down_s is not None:
        text.append(f" for {human_seconds(guest.link_down_s)}")
    if guest.run_state not in (None, "running"):
        text.append(f", {guest.run_state}", "bold red")
    return text


def _remarks(guest: GuestView) -> Iterator[str]:
    vm = shlex.quote(guest.vm)
    if guest.downtime_ms is not None:
        yield f"stood still for {human_seconds(guest.downtime_ms / 1000)} when it moved"
    if guest.job:
        yield job_line(guest.job) + _limit(guest.job, guest.bandwidth)
    elif guest.state == State.SETTLING and not guest.problem:
        yield "its data is being brought over"
    elif guest.upstream:
        yield f"still needs {', '.join(guest.upstream)}; to end that: qemu-esd settle {vm}"
    if guest.left_behind:
        yield f"put aside on {', '.join(guest.left_behind)}: its former images; to delete them: qemu-esd release {vm}"
    for disk, why in guest.io_errors.items():
        yield f"{printable(disk)} has stopped it: {_io_error(guest, why)}"
    if guest.link == "down" and "nospace" not in guest.io_errors.values():
        yield _waits(guest)
    elif guest.run_state in ("paused", "io-error"):
        yield f"to let it run{_by_whom(guest)} {vm}"


def _by_whom(guest: GuestView) -> str:
    """virsh is the host's."""
    where = f", on {guest.host}" if guest.kind is Kind.DOMAIN else ""
    return f"{where}: {LET_RUN[guest.kind or Kind.BARE]}"


def _io_error(guest: GuestView, why: str) -> str:
    if why == "nospace":
        return f"no space is left for it on {guest.host}; make room there"
    places = ", or of what is still on ".join((f"its image on {guest.host}", *guest.upstream[:1]))
    return f"a read or write of {places} has failed"


def _waits(guest: GuestView) -> str:
    count = "" if guest.waiting_requests is None else f" ({guest.waiting_requests} under way now)"
    if guest.run_state == "io-error":
        return f"it goes on by itself when the link is back{count}"
    return f"its reads of what is not here yet wait for the link{count}"


def _limit(job: JobView, bandwidth: Bandwidth) -> str:
    if job.limit is None:
        return ""
    return f" (limit {human_bytes(job.limit)}/s{' now, for the guest to bear it' if bandwidth == AUTO else ''})"


def job_line(job: JobView) -> str:
    """How far the background move of a disk is, how fast, and how long it takes still."""
    percent = 100 * job.done // job.total if job.total else 100
    line = f"moving {printable(job.disk)}: {percent} %, {human_bytes(job.done)} of {human_bytes(job.total)}"
    if job.rate <= 0:
        return line
    left = max(job.total - job.done, 0) / job.rate
    return f"{line}, {human_bytes(job.rate)}/s, {human_seconds(left)} left"
