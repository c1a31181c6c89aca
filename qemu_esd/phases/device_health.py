"""Devices that look shared, in the words of `doctor`. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from qemu_esd.model.device import DeviceRecord
from qemu_esd.model.finding import Finding, Level

CHECK = "devices"


def of_host(host: str, devices: Iterable[DeviceRecord]) -> Iterator[Finding]:
    """What a host knows of devices, by itself."""
    for record in devices:
        if record.is_being_made:
            what = f"the device {record.suid} is being made, or that was broken off"
            delete = f"qemu-esd device delete {shlex.quote(record.suid)} --host {shlex.quote(host)}"
            hint = f"if nobody is at work on it: {delete}"
            yield Finding(host, CHECK, Level.PROBLEM, what, "nobody can use it, or make another one of that SUID", hint)
        if record.move is not None:
            what = f"the device {record.suid} is about to move from {record.authority} to {record.move.target}"
            why = "until the move has come to its end no guest can be started on it elsewhere"
            hint = f"if nobody is at work on it: qemu-esd device move {shlex.quote(record.suid)} {record.move.target}"
            yield Finding(host, CHECK, Level.PROBLEM, what, why, hint)


def of_pair(a: str, of_a: Iterable[DeviceRecord], b: str, of_b: Iterable[DeviceRecord]) -> Iterator[Finding]:
    """Where two hosts of a device do not know the same of it: one may have lost it, or be put back to an old state."""
    here, there = ({record.suid: record for record in records} for records in (of_a, of_b))
    for suid in sorted({*here, *there}):
        known = [side[suid] for side in (here, there) if suid in side]
        if any(record.is_being_made for record in known):
            continue
        newest = max(known, key=lambda record: record.generation)
        if {a, b} <= set(newest.hosts) and known != [newest, newest] and newest.move is None:
            what = f"they do not know the same of the device {suid}"
            why = "a command was broken off there, or a host has been put back to an old state"
            hint = f"qemu-esd device restore {shlex.quote(suid)}"
            yield Finding(f"{a} - {b}", CHECK, Level.PROBLEM, what, why, hint)
