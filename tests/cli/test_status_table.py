"""Guests as lines: what fits 80 columns, word for word, and what is worth a line in a log."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from qemu_esd.cli import render, render_status, status_table
from qemu_esd.cli.status_table import Amounts
from qemu_esd.cli.watching import Observation, after
from qemu_esd.model.vm import Kind
from qemu_esd.view import DiskView, GuestView, HostView, JobView, JournalView, MemoryView

MIB = 1 << 20
DISK = DiskView("vda", "suid1", "on-demand", "local", 512 * MIB, 97 * MIB, 205 * MIB, True)
MOVED = GuestView(
    "0badcafe", "vm1", "hostA", "hostB", True, "handed-over", 46.4, None, None, (DISK,), "hostB", "up", None, "running",
    1, ("hostA",), hosts=(HostView("hostB", "runs"), HostView("hostA", "serves", "0badcafe", "tls", "192.0.2.1:49800")),
    journal=JournalView("0badcafe", "handed-over", False, ()),
)  # fmt: skip
JOB = JobView("vda", 32 * MIB, 128 * MIB, 8 * MIB)
STILL = replace(MOVED, vm="vm2", host="hostA", state="local", link="none", upstream=(), hosts=(), journal=None, id=None)
HOME = replace(STILL, disks=(replace(DISK, handler="local", local_bytes=512 * MIB, remote_bytes=0),))


def drawn(guests: list[GuestView], rates: dict[str, int] | None = None, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    return render.drawn(status_table.table(guests, rates or {}, width), console)


def test_a_line_for_each_guest() -> None:
    moving = replace(MOVED, vm="vm3", state="settling", job=JOB, disks=(replace(DISK, handler="background"),))
    lost = replace(STILL, vm="vm4", state="unreachable", disks=(), run_state=None, problem="hostA: no answer")
    assert drawn([MOVED, HOME, moving, lost], {"vm1": 2 * MIB}) == (
        "guest on    policy      data       left link moves        next\n"
        "vm1   hostB on-demand   █░░░░····· 205M up   32% 2M/s 2m  settle\n"
        "vm2   hostA local       ██████████    0\n"
        "vm3   hostB background  █░░░░····· 205M up   25% 8M/s 12s settle\n"
        "vm4   hostA unreachable                                   look\n"
        "vm4: hostA: no answer"
    )


def test_what_is_long_still_fits_80_columns() -> None:
    long = replace(
        MOVED,
        vm="a-guest-with-a-very-long-name-indeed",
        host="a-host.with.a.long.name.example",
        job=replace(JOB, done=1023 << 30, total=1024 << 30, rate=1023 * MIB),
        disks=(replace(DISK, handler="background", remote_bytes=1023 << 30),),
    )
    lines = drawn([long, replace(MOVED, disks=(DISK, replace(DISK, handler="miss")))]).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 3
    assert lines[1].startswith("a-guest-")
    wide = drawn([long], width=140).splitlines()[1]
    assert wide.startswith("a-guest-with-a-very-long-name-indeed a-host.with.a.long.name.example ")


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (Amounts(100, 0, 0), "██████████"),
        (Amounts(1, 999, 0), "█░░░░░░░░░"),
        (Amounts(0, 500, 500), "░░░░░·····"),
        (Amounts(1, 1, 1000), "█░········"),
        (Amounts(0, 0, 0), "··········"),
        (None, "??????????"),
    ],
)
def test_whatever_there_is_has_a_cell(held: Amounts | None, told: str) -> None:
    assert status_table.bar(held).plain == told


def test_what_is_next() -> None:
    words = {
        "settle": MOVED,
        "release": replace(MOVED, upstream=(), left_behind=("hostA",)),
        "": HOME,
        "resume": replace(MOVED, problem="migration 1 was broken off; to go on: qemu-esd resume 1"),
        "start": replace(MOVED, state="shut off", disks=(), problem="to start it again: qemu-esd vm start vm1"),
        "room": replace(MOVED, io_errors={"vda": "nospace"}, run_state="io-error"),
        "cont": replace(MOVED, run_state="paused"),
        "virsh resume": replace(MOVED, run_state="paused", kind=Kind.DOMAIN),
        "wait": replace(MOVED, link="down", run_state="io-error"),
        "look": replace(MOVED, state="unreachable"),
    }
    assert {word: status_table.next_word(guest) for word, guest in words.items()} == {word: word for word in words}


def test_what_moves() -> None:
    assert status_table.move(replace(MOVED, memory=MemoryView(40, 100, None, None)), None) == "memory 40%"
    assert status_table.move(replace(MOVED, run_state="io-error"), None) == "io-error"
    assert status_table.move(replace(MOVED, state="preparing"), None) == "preparing"
    assert status_table.move(MOVED, 0) == ""


def test_a_rate_is_seen_between_two_observations() -> None:
    first = after(None, [MOVED, HOME], 10.0)
    more = replace(MOVED, disks=(replace(DISK, local_bytes=99 * MIB, remote_bytes=203 * MIB),))
    assert first == Observation(10.0, (MOVED, HOME), {})
    assert after(first, [more, HOME], 12.0).rates == {"vm1": MIB, "vm2": 0}
    assert after(first, [replace(more, host="hostC")], 12.0).rates == {}
    assert after(first, [replace(more, disks=(replace(DISK, local_bytes=None),))], 12.0).rates == {}


def test_a_log_has_a_line_when_something_matters() -> None:
    little = replace(MOVED, disks=(replace(DISK, local_bytes=98 * MIB, remote_bytes=204 * MIB),))
    much = replace(MOVED, disks=(replace(DISK, local_bytes=150 * MIB, remote_bytes=152 * MIB),))
    assert status_table.matters(MOVED) == status_table.matters(little)
    for other in (much, replace(MOVED, link="down"), replace(MOVED, run_state="paused"), replace(MOVED, host="hostC")):
        assert status_table.matters(MOVED) != status_table.matters(other)
    assert status_table.line(MOVED, 2 * MIB) == (
        "vm1 on hostB, handed over, on-demand, 97.0 MiB here, 205.0 MiB left, link up, 32% 2M/s 2m, next: settle"
    )
    assert "\x1b" not in status_table.line(replace(MOVED, vm="\x1b[2J"), None)


def test_a_guest_in_full() -> None:
    errors = ("hostB: no space is left for vda; try: make room there",)
    full = replace(MOVED, journal=JournalView("0badcafe", "handed-over", False, errors))
    console = Console(file=io.StringIO(), width=80, color_system=None, highlight=False)
    assert render.drawn(render_status.guest_page(full, MIB), console) == (
        "vm1  hostB  handed over, from hostA, link up\n"
        "  disk  policy         here  on the source       size\n"
        "  vda   on-demand  97.0 MiB      205.0 MiB  512.0 MiB\n"
        "  stood still for 46 ms when it moved\n"
        "  still needs hostA; to end that: qemu-esd settle vm1\n"
        "  data comes at 1.0 MiB/s, 3 min 25 s left at that\n"
        "  migration 0badcafe: handed-over; how it went: qemu-esd report 0badcafe\n"
        "  it has moved once\n"
        "  host                      since migration  by                port\n"
        "  hostB  runs it\n"
        "  hostA  serves data of it  0badcafe         TLS to 192.0.2.1  49800\n"
        "  the last errors:\n"
        "    hostB: no space is left for vda; try: make room there"
    )
