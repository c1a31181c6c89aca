"""Devices that look shared, for people and for programs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Group, RenderableType

from qemu_esd.cli.render import plain_table, printable, whole_line
from qemu_esd.model import device
from qemu_esd.model.device import FACE, GATE, DeviceRecord
from qemu_esd.model.vm import LET_RUN, Kind
from qemu_esd.phases.device_look import View
from qemu_esd.units import human_bytes


def table(records: Iterable[DeviceRecord]) -> RenderableType:
    """A line for each."""
    drawn = plain_table("device", "size", "data at", "hosts", "state", right=("size",))
    for record in records:
        drawn.add_row(record.suid, human_bytes(record.size), record.authority, ", ".join(record.hosts), state(record))
    return drawn


def page(view: View) -> RenderableType:
    """One in full, and the next commands."""
    drawn = plain_table("host", "role", "path handler", "gate", "used by")
    for place in view.places:
        users = ", ".join(f"{client.program} (pid {client.pid})" for client in place.clients)
        drawn.add_row(
            place.host, place.role, place.units[FACE], place.units[GATE], printable(place.error or users or "-")
        )
    return Group(*map(whole_line, _headlines(view)), drawn)


def overview(views: Iterable[View]) -> RenderableType:
    """A line for each of them, and what it needs."""
    return Group(*(whole_line(line) for view in views for line in _in_short(view)))


def _in_short(view: View) -> Iterator[str]:
    yield f"device {view.record.suid}: {state(view.record)}, at {view.record.authority}"
    yield from (f"  {words}" for words in advice(view))


def _headlines(view: View) -> Iterator[str]:
    record = view.record
    yield f"{record.suid}: {human_bytes(record.size)}, {state(record)}; {socket(record)}"
    if view.remote:
        yield f"{human_bytes(view.remote)} are still on {_read_from(record)}"


def advice(view: View) -> list[str]:
    """The next commands."""
    return [*_for_room(view), *_to_mend(view)]


def _for_room(view: View) -> Iterator[str]:
    for place in view.places:
        for guest in place.waiting:
            no_room = f"no space is left for {view.record.suid} on {view.record.authority}"
            told = f"{LET_RUN[Kind.DOMAIN if guest.is_domain else Kind.BARE]} {shlex.quote(guest.name)}"
            yield f"{printable(guest.name)} stands still on {place.host}: {no_room}; make room there, then: {told}"


def _to_mend(view: View) -> list[str]:
    record, used = view.record, [place.host for place in view.places if place.clients]
    if silent := [place.host for place in view.places if place.error]:
        words = f"{silent[0]} does not answer, and whoever needs it for {record.suid} waits; when it is back"
        return [f"{words}: qemu-esd host restore {silent[0]}"]
    if record.is_being_made:
        return [f"if nobody is making it any more, to remove what there is: qemu-esd device delete {record.suid}"]
    if record.move is not None:
        return [f"a move was broken off; to go on: qemu-esd device move {record.suid} {record.move.target}"]
    if view.is_broken_off or any(place.missing for place in view.places):
        return [f"not all of {record.suid} is as it should be; to mend it: qemu-esd device restore {record.suid}"]
    if used and record.authority not in used:
        words = f"{record.suid} is used on {used[0]} over {record.authority}; to bring it there"
        return [f"{words}: qemu-esd device move {record.suid} {used[0]}"]
    return []


def socket(record: DeviceRecord) -> str:
    """Its local name, for an NBD client."""
    return f"nbd+unix:///{record.suid}?socket={device.socket(record.seats[0].paths, record.suid)}"


def state(record: DeviceRecord) -> str:
    """How far its data is where it is to be."""
    if record.is_being_made:
        return "being made"
    if record.move is not None:
        return f"moving to {record.move.target}"
    if not record.is_whole:
        return f"{record.handler}, reads from {_read_from(record)}"
    return "whole"


def _read_from(record: DeviceRecord) -> str:
    return ", ".join(kept.host for kept in record.kept)


def facts(record: DeviceRecord) -> dict[str, Any]:
    """For --json."""
    return {
        "suid": record.suid,
        "size": record.size,
        "authority": record.authority,
        "hosts": list(record.hosts),
        "handler": record.handler,
        "policy": record.policy,
        "reads_from": record.behind.host if record.behind else None,
        "reads_beyond": [kept.host for kept in record.beyond],
        "moving_to": record.move.target if record.move else None,
        "socket": device.socket(record.seats[0].paths, record.suid),
        "left": [{"host": one.host, "image": one.aside} for one in record.left],
    }


def view_facts(view: View) -> dict[str, Any]:
    """The same with what was seen on its hosts."""
    places = [
        {
            "host": place.host,
            "role": place.role,
            "path_handler": place.units[FACE],
            "gate": place.units[GATE],
            "clients": [{"program": client.program, "pid": client.pid} for client in place.clients],
            "waiting_for_room": [guest.name for guest in place.waiting],
            "error": place.error,
        }
        for place in view.places
    ]
    return {**facts(view.record), "remote_bytes": view.remote, "broken_off": view.is_broken_off, "places": places}
