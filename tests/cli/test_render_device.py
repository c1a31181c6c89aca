"""What is said of devices that look shared, and which command comes next."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from qemu_esd.cli import render, render_device
from qemu_esd.model.device import UNITS, DeviceRecord
from qemu_esd.nbd import Residence, Residency, Where
from qemu_esd.phases.device_clients import Client
from qemu_esd.phases.device_look import Place, View
from qemu_esd.phases.device_room import Waiting
from tests.support.devices import MOVING, TAKEN, WHOLE

RUNS, DOWN = dict.fromkeys(UNITS, "running"), dict.fromkeys(UNITS, "unknown")
QEMU = (Client("qemu-system-x86", 11),)


def view(record: DeviceRecord, *changed: Place) -> View:
    places = {host: Place(host, "forwards", RUNS, knows=record.generation) for host in record.hosts}
    seen = {**places, **{place.host: place for place in changed}}
    return View(record, tuple(seen.values()), Residency((Residence(0, 4096, Where.REMOTE),), 0, 4096, 0))


@pytest.mark.parametrize(
    ("seen", "command"),
    [
        (view(WHOLE), None),
        (view(WHOLE, Place("hosta", "authority", RUNS, QEMU, 1)), None),
        (view(WHOLE, Place("hostb", "forwards", RUNS, QEMU, 1)), "device move d1 hostb"),
        (view(WHOLE, Place("hostb", "forwards", RUNS, knows=None)), "device restore d1"),
        (view(WHOLE, Place("hostb", "forwards", RUNS, knows=1, missing=("gate",))), "device restore d1"),
        (view(WHOLE, Place("hostc", "forwards", DOWN, error="no answer")), "host restore hostc"),
        (view(MOVING), "device move d1 hostb"),
        (view(replace(WHOLE, generation=0)), "device delete d1"),
    ],
)
def test_the_next_command(seen: View, command: str | None) -> None:
    said = render_device.advice(seen)
    assert [words.partition(": qemu-esd ")[2] for words in said] == ([command] if command else [])


@pytest.mark.parametrize(
    ("guest", "command"),
    [(Waiting("vm1", False), "qemu-esd vm cont vm1"), (Waiting("a b", True), "virsh resume 'a b'")],
)
def test_who_waits_for_room(guest: Waiting, command: str) -> None:
    (said,) = render_device.advice(view(TAKEN, Place("hostb", "authority", RUNS, QEMU, TAKEN.generation, (), (guest,))))
    assert "stands still on hostb: no space is left for d1 on hostb" in said
    assert said.endswith(command)


def test_one_in_full() -> None:
    behind = Place("hosta", "behind", RUNS, QEMU, TAKEN.generation)
    told = render.drawn(render_device.page(view(TAKEN, behind)), Console(width=120))
    assert "d1: 1.0 MiB, on-demand, reads from hosta; nbd+unix:///d1?socket=/run/qemu-esd/device/d1.sock" in told
    assert "4.0 KiB are still on hosta" in told
    assert "qemu-system-x86 (pid 11)" in told
