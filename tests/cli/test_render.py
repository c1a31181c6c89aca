"""What people read, word for word, on a terminal of 80 columns without colours."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from qemu_esd.cli import render, render_map, render_outcome, render_plan, render_progress, render_status
from qemu_esd.errors import EsdError
from qemu_esd.model.plan import Problem, Transport
from qemu_esd.model.policy import Handler
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Measured, State
from qemu_esd.model.vm import Kind
from qemu_esd.nbd import Residence, Residency, Where
from qemu_esd.view import DiskMap, DiskView, GuestView, JobView, MigrationView
from tests.support.samples import MIB, plan

DISK = DiskView("vda", "suid1", "on-demand", "local", 128 * MIB, 2 * MIB, 126 * MIB, True)
MOVED = MigrationView("0badcafe", "vm", "a", "b", True, "handed-over", 46.4, 800.0, None, (DISK,))
GUEST = GuestView(
    "0badcafe", "vm", "a", "b", True, "handed-over", 46.4, None, None, (DISK,), "b", "up", None, "running", 1, ("a",)
)


def drawn(thing: RenderableType, width: int = 80) -> str:
    return render.drawn(thing, Console(file=io.StringIO(), width=width, color_system=None, highlight=False))


def test_an_error() -> None:
    error = EsdError("it broke [red]", host="hostA", hint="mend it")
    assert drawn(render.error_text(error)) == "error: hostA: it broke [red]\n  try: mend it"
    assert drawn(render.error_text(EsdError("it broke"))) == "error: it broke"


def test_nothing_that_a_terminal_obeys_is_passed_on() -> None:
    assert render.printable("a\x1b[2Jb\rc\nd\x07 é") == "a\\x1b[2Jb\\rc\nd\\x07 é"
    evil = replace(GUEST, vm="vm\x1b[2J", problem="\x1b]0;pwned\x07")
    assert "\x1b" not in drawn(render_status.guest_picture(evil))


def test_an_outcome() -> None:
    figures = dict.fromkeys(
        ("planned", "prepared", "precopy", "downtime", "resumed-after", "handed-over", "total"), 0.0
    )
    figures |= {
        "planned": 150.0,
        "prepared": 410.0,
        "precopy": 1910.0,
        "downtime": 46.4,
        "resumed-after": 1960.0,
        "handed-over": 2300.0,
    }
    assert drawn(render_outcome.outcome(MOVED, figures, goes_on=False)) == (
        "vm runs on b, and was on a; it stood still for 46 ms\n"
        "\n"
        "phase        ended after    took\n"
        "planned           150 ms  150 ms\n"
        "prepared          410 ms  260 ms\n"
        "precopy            1.9 s   1.5 s\n"
        "switchover         2.0 s   50 ms  the guest stood still for 46 ms\n"
        "handed over        2.3 s  340 ms\n"
        "\n"
        "disk  policy        here  on the source       size\n"
        "vda   on-demand  2.0 MiB      126.0 MiB  128.0 MiB\n"
        "\n"
        "It needs a for what it has not got; to bring all of it over: qemu-esd settle vm"
    )


def test_a_settled_outcome_tells_when() -> None:
    settled = replace(MOVED, state=State.SETTLED, disks=())
    text = drawn(render_outcome.outcome(settled, {"handed-over": 2300.0, "total": 9000.0}, goes_on=False))
    assert "settled            9.0 s  6.7 s" in text
    assert text.endswith("a has put its images aside; to delete them: qemu-esd release vm")


@pytest.mark.parametrize(
    ("state", "handler", "goes_on", "said"),
    [
        ("released", "local", False, "a has forgotten it."),
        ("settled", "local", False, "qemu-esd release 'my vm'"),
        ("handed-over", "background", True, "qemu-esd status 'my vm'"),
        ("handed-over", "redirect", True, "qemu-esd settle 'my vm'"),
    ],
)
def test_the_next_step(state: str, handler: str, goes_on: bool, said: str) -> None:
    moved = replace(MOVED, vm="my vm", state=state, disks=(replace(DISK, handler=handler),))
    assert render_outcome.next_step(moved, goes_on).endswith(said)


def test_a_status() -> None:
    assert drawn(render_status.guest_picture(GUEST)) == (
        "vm  b  handed over, from a, link up\n"
        "  disk  policy        here  on the source       size\n"
        "  vda   on-demand  2.0 MiB      126.0 MiB  128.0 MiB\n"
        "  stood still for 46 ms when it moved\n"
        "  still needs a; to end that: qemu-esd settle vm"
    )


def test_a_status_while_data_moves() -> None:
    moving = replace(
        GUEST, state="settling", job=JobView("vda", 32 * MIB, 128 * MIB, 8 * MIB), downtime_ms=None, disks=()
    )
    assert drawn(render_status.guest_picture(moving)) == (
        "vm  b  settling, from a, link up\n  moving vda: 25 %, 32.0 MiB of 128.0 MiB, 8.0 MiB/s, 12.0 s left"
    )
    assert moving.job is not None
    limited = replace(moving, job=replace(moving.job, limit=8 * MIB), bandwidth=8 * MIB)
    assert drawn(render_status.guest_picture(limited)).endswith("12.0 s left (limit 8.0 MiB/s)")
    adapted = render_status.guest_picture(replace(limited, bandwidth="auto"))
    assert " ".join(drawn(adapted).split()).endswith("12.0 s left (limit 8.0 MiB/s now, for the guest to bear it)")


def test_a_status_of_what_is_not_known() -> None:
    unknown = replace(DISK, local_bytes=None, remote_bytes=None)
    assert "vda   on-demand     ?              ?  128.0 MiB" in drawn(render_outcome.disk_table([unknown]))
    paused = replace(GUEST, disks=(), upstream=(), run_state="io-error", left_behind=("a", "c"))
    cut = replace(paused, link="down", link_down_s=43, left_behind=(), downtime_ms=None)
    assert drawn(render_status.guest_picture(paused)) == (
        "vm  b  handed over, from a, link up, io-error\n"
        "  stood still for 46 ms when it moved\n"
        "  put aside on a, c: its former images; to delete them: qemu-esd release vm\n"
        "  to let it run: qemu-esd vm cont vm"
    )
    domain = drawn(render_status.guest_picture(replace(paused, kind=Kind.DOMAIN)))
    assert domain.endswith("\n  to let it run, on b: virsh resume vm")
    assert drawn(render_status.guest_picture(cut)) == (
        "vm  b  handed over, from a, link down for 43.0 s, io-error\n  it goes on by itself when the link is back"
    )
    assert "when the link is back (3 under way now)" in drawn(
        render_status.guest_picture(replace(cut, waiting_requests=3))
    )
    running = replace(cut, run_state="running", link_down_s=None)
    assert drawn(render_status.guest_picture(running)) == (
        "vm  b  handed over, from a, link down\n  its reads of what is not here yet wait for the link"
    )


def test_a_status_says_what_has_stopped_the_guest() -> None:
    full = replace(GUEST, disks=(), upstream=(), run_state="io-error", io_errors={"vda": "nospace"})
    words = "  vda has stopped it: no space is left for it on b; make room there\n"
    assert words in drawn(render_status.guest_picture(full))
    failed = replace(full, upstream=("a",), io_errors={"vda": "failed"})
    words = "  vda has stopped it: a read or write of its image on b, or of what is still on a has failed\n"
    assert words in drawn(render_status.guest_picture(failed))


def test_a_plan_whose_move_adapts_to_the_guest() -> None:
    told = drawn(render_plan.plan_picture(replace(plan(), bandwidth="auto"), []))
    assert "as fast as the guest bears in the background" in " ".join(told.split())
    assert render_plan.plan_json(replace(plan(), bandwidth="auto"), ())["bandwidth"] == "auto"


def test_a_plan() -> None:
    assert drawn(render_plan.plan_picture(replace(plan(), bandwidth=MIB, downtime_ms=50), ["a remark"])) == (
        "migrate vm: one supervised ssh, 256.0 MiB of memory, pc-q35-7.2, at most 1.0\n"
        "MiB/s in the background, at most 50 ms of downtime\n"
        "      host  address    port\n"
        "from  a     192.0.2.1  -\n"
        "to    b     192.0.2.2  -\n"
        "\n"
        "disk  policy          size     data     needs  graph\n"
        "root  background  64.0 MiB  8.0 MiB  72.0 MiB  copy-on-read → qcow2 overlay →\n"
        "                                               NBD, prefetched\n"
        "\n"
        "root: /images/root on a, /b/root.qcow2 on b\n"
        "note: a remark"
    )


def test_a_plan_without_local_space_needs_none() -> None:
    disk = replace(plan().disks[0], member=None, handler=Handler.REDIRECT)
    assert (render_plan.graph_of(disk), render_plan.needed_bytes(disk)) == ("NBD, read and written", 0)


def test_a_plan_as_json_has_no_export_name() -> None:
    told = render_plan.plan_json(plan(), ("a remark",))
    assert told["disks"][0]["needed_bytes"] == 72 * MIB
    assert told["remarks"] == ["a remark"]
    assert "esd-1" not in str(told)


def test_problems() -> None:
    problems = (Problem("a", "it is broken", "mend it"), Problem("b", "so is this", ""))
    assert drawn(render_plan.problem_list(problems)) == (
        "2 problems found, and nothing was touched:\n  a: it is broken\n    try: mend it\n  b: so is this"
    )
    assert drawn(render_plan.problem_list(())) == "no problem found, and nothing was touched"
    assert drawn(render_plan.refusal("vm", "b", problems[:1])) == (
        "error: vm cannot be migrated to b:\n  a: it is broken\n    try: mend it\nNothing was touched."
    )


def test_doubts() -> None:
    missing = replace(plan(), disks=(replace(plan().disks[0], handler=Handler.MISS),))
    assert render_plan.doubts(plan(), ()) == []
    assert render_plan.doubts(missing, ("x",)) == [
        "x",
        "the data of root stays on a: the guest's reads of it will fail",
    ]
    assert "unencrypted" in render_plan.doubts(replace(plan(), transport=Transport.PLAINTEXT), ())[0]


def test_lines_of_a_migration() -> None:
    story: list[State | Measured] = [
        State.PREPARING, Measured("prepared", 410.0), State.SWITCHING, Measured("precopy", 1900.0), State.COMMITTED,
        Measured("downtime", 46.0), Measured("resumed-after", 1960.0), Measured("handed-over", 2300.0), State.SETTLED,
    ]  # fmt: skip
    assert [line for event in story if (line := render_progress.line_of(event, plan()))] == [
        "preparing a and b",
        "prepared after 410 ms",
        "memory moved after 1.9 s",
        "switched over: vm runs on b, and stood still for 46 ms",
        "handed over after 2.3 s: the QEMU on a has ended",
        "settled: vm does not need a any more",
    ]
    assert render_progress.line_of(State.ROLLED_BACK, plan()) == "rolled back: vm runs on a as before"


def test_progress_without_a_terminal_is_a_line_for_every_tenth() -> None:
    steps = render_progress.Steps()
    shown = [steps.line_of(Progress("vda", done * MIB, 100 * MIB), done / 10) for done in range(101)]
    assert [line for line in shown if line] == [
        "vda    0 %  0 B of 100.0 MiB",
        *(
            f"vda  {done:3} %  {done}.0 MiB of 100.0 MiB  10.0 MiB/s"
            + (f"  {(100 - done) / 10} s left" if done < 100 else "")
            for done in range(10, 101, 10)
        ),
    ]
    assert steps.line_of(Progress("vda", 50 * MIB, 100 * MIB), 11.0) is None
    assert steps.line_of(Progress("RAM", 0, 0), 0.0) is None


def test_progress_of_memory_says_whether_it_comes_to_its_end() -> None:
    steps = render_progress.Steps()
    assert steps.line_of(Progress("RAM", 0, 100 * MIB), 0.0) is not None
    now = Progress("RAM", 50 * MIB, 100 * MIB, 2 * MIB, 310)
    assert steps.line_of(now, 1.0) == (
        "RAM   50 %  50.0 MiB of 100.0 MiB  50.0 MiB/s  1.0 s left"
        "  the guest writes 2.0 MiB/s, would stand still for 310 ms"
    )


def test_progress_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    paper = _Terminal()
    bars = render_progress.display_for(paper)
    bars.show(Progress("RAM", 50 * MIB, 100 * MIB, 2 * MIB, 310))
    bars.show(Progress("vda", 50 * MIB, 100 * MIB))
    bars.close()
    assert "the guest writes 2.0 MiB/s, would stand still for 310 ms" in paper.getvalue()
    assert "vda" in paper.getvalue()


def test_progress_of_several_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    paper = _Terminal()
    bars = render_progress.display_for(paper)
    bars.show(Progress("web RAM", 50 * MIB, 100 * MIB))
    bars.show(Progress("web1 vda", 50 * MIB, 100 * MIB))
    before = len(paper.getvalue())
    bars.clear("web ")
    bars.close()
    assert "web1 vda" in paper.getvalue()[before:]
    assert "web RAM" not in paper.getvalue()[before:]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_go_to_the_stream() -> None:
    stream = io.StringIO()
    display = render_progress.display_for(stream)
    render_progress.tell(display, State.PREPARING, plan())
    render_progress.tell(display, Progress("vda", 1, 2), plan())
    display.close()
    assert stream.getvalue() == "preparing a and b\nvda   50 %  1 B of 2 B\n"


def residency(*parts: tuple[int, Where]) -> Residency:
    """A map of parts, each of so many MiB."""
    ranges, offset = [], 0
    for mib, where in parts:
        ranges.append(Residence(offset, mib * MIB, where))
        offset += mib * MIB
    totals = [sum(part.length for part in ranges if part.state is where) for where in Where]
    return Residency(tuple(ranges), *totals)


def test_a_map() -> None:
    where = residency((9, Where.LOCAL), (40, Where.REMOTE), (15, Where.HOLE), (64, Where.LOCAL))
    picture = drawn(render_map.picture(DiskMap(DISK, where), "b", 43, render_map.BLOCKS))
    assert picture == (
        "vda on b: on-demand, 128.0 MiB\n"
        "       0 B █████████░░░░░░░░░░░░░░░░░░░░░░\n"
        "  31.0 MiB ░░░░░░░░░░░░░░░░░░·············\n"
        "  62.0 MiB ··█████████████████████████████\n"
        "  93.0 MiB ███████████████████████████████\n"
        " 124.0 MiB ████\n"
        "           █ local 73.0 MiB  ▒ partly local  ░ remote 40.0 MiB  · hole 15.0 MiB\n"
        "           one cell is 1.0 MiB"
    )


def test_a_map_fits_the_terminal() -> None:
    where = residency((128, Where.LOCAL))
    for width in (20, 40, 80, 200):
        rows = drawn(render_map.picture(DiskMap(DISK, where), "b", width, render_map.BLOCKS), width).splitlines()[1:-2]
        assert 0 < len(rows) <= render_map.ROWS
        assert max(map(len, rows)) < max(width, 20)


def test_a_map_without_colours_or_unicode_says_the_same() -> None:
    where = residency((1, Where.LOCAL), (1, Where.REMOTE), (1, Where.HOLE))
    view = replace(DISK, virtual_bytes=3 * MIB)
    ascii_rows = drawn(render_map.picture(DiskMap(view, where), "b", 80, render_map.ASCII)).splitlines()
    assert ascii_rows[1] == "       0 B " + "#" * 16 + "-" * 16 + "." * 16


def test_cells_that_hold_both_are_mixed_and_the_last_may_be_short() -> None:
    size = 8 * 8 * MIB + 512
    half = Residency(
        (Residence(0, MIB, Where.LOCAL), Residence(MIB, size - MIB, Where.REMOTE)), MIB, size - MIB, 0
    )  # fmt: skip
    grid = render_map.grid(half, size, 8)
    assert grid.cell_bytes == 2 * MIB
    assert grid.cells == (render_map.Cell.MIXED, *[render_map.Cell.REMOTE] * 32)


def test_a_disk_that_is_all_in_one_place_has_no_grid() -> None:
    settled = replace(DISK, handler="local", local_bytes=128 * MIB, remote_bytes=0)
    assert drawn(render_map.picture(DiskMap(settled, None), "b", 80, render_map.BLOCKS)) == (
        "vda on b: local, 128.0 MiB\n  128.0 MiB here, 0 B on the source"
    )
