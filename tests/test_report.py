"""What a journal and a trail tell of a migration, and the page that is made of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from qemu_esd import report
from qemu_esd.cli import chart, report_page
from qemu_esd.errors import UsageError
from qemu_esd.journal import lines, store, trail
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Entered, Entry, Held, Measured, State
from qemu_esd.model.resource import Folder
from qemu_esd.model.trail import Mark, Marked, Remark, Snapshot, Versions
from qemu_esd.report import Phase, Point, Stall
from tests.support.samples import MIB, plan

ENTRIES: list[tuple[float, Entry]] = [
    (0.5, Measured("planned", 500.0)),
    (0.5, Entered(State.PREPARING)),
    (0.6, Held(Folder("a", "/link"))),
    (1.0, Measured("prepared", 1000.0)),
    (3.0, Entered(State.SWITCHING)),
    (3.2, Entered(State.COMMITTED)),
    (3.3, Entered(State.RUNNING)),
    (3.4, Measured("downtime", 180.0)),
    (4.0, Entered(State.HANDED_OVER)),
    (4.5, Entered(State.SETTLING)),
    (14.5, Entered(State.SETTLED)),
]
MARKS: list[tuple[float, Mark]] = [
    (0.5, Remark("note", "a note")),
    (1.0, Progress("RAM", 0, 100 * MIB)),
    (2.0, Progress("RAM", 40 * MIB, 100 * MIB, 5 * MIB, 300)),
    (3.0, Progress("RAM", 60 * MIB, 110 * MIB, 6 * MIB, 200)),
    (4.2, Snapshot("arrived", "root", 64 * MIB, 0, 8 * MIB, "rrhh" * 100, 128 << 10)),
    (4.5, Progress("root", 0, 64 * MIB)),
    (5.5, Progress("root", 32 * MIB, 64 * MIB)),
    (7.5, Progress("root", 32 * MIB, 64 * MIB)),
    (9.5, Progress("root", 32 * MIB, 64 * MIB)),
    (10.5, Progress("root", 64 * MIB, 64 * MIB)),
    (11.0, Remark("warning", "<script>alert(1)</script> & more")),
    (14.5, Snapshot("end", "root", 64 * MIB, 64 * MIB, 0)),
    (14.5, Versions("0.1.0", {"a": "7.2.22", "b": "10.0.2"})),
]


def told(entries: list[tuple[float, Entry]] = ENTRIES, marks: list[tuple[float, Mark]] = MARKS) -> report.Report:
    """Of a journal whose first line is written when the plan is made, half a second after the command began."""
    from qemu_esd.model.record import Planned

    whole = ((0.5, Planned(plan())), *entries)
    story = store.tell(tuple(entry for _, entry in whole))
    times = [1000.0 + seconds for seconds, _ in whole]
    return report.told(story, times, [Marked(1000.0 + seconds, mark) for seconds, mark in marks])


def test_phases() -> None:
    assert told().began == 1000.0
    assert told().phases == (
        Phase("plan", 0.0, 0.5),
        Phase("prepare", 0.5, 1.0),
        Phase("memory", 1.0, 3.0),
        Phase("switchover", 3.0, pytest.approx(3.3)),  # type: ignore[arg-type]
        Phase("handover", pytest.approx(3.3), 4.0),  # type: ignore[arg-type]
        Phase("settle", 4.5, 14.5),
    )
    broken_off = told(ENTRIES[:4])
    assert broken_off.phases[-1] == Phase("memory", 1.0, None)


def test_names_below_a_chart_do_not_meet() -> None:
    names = ["vda", "a-disk-with-a-long-name", "another-disk-with-a-long-name", "vdb"]
    places = chart.legend(names)
    assert [row for _, row in places] == [0, 0, 1, 1]
    assert [x for x, _ in places][::2] == [0, 0]


def test_rates_and_stalls() -> None:
    samples = told().samples
    assert report.rates(samples["RAM"]) == (Point(2.0, 40.0 * MIB), Point(3.0, 20.0 * MIB))
    assert told().stalls == (Stall("root", 5.5, 4.0),)
    still = [*MARKS[:6], (5.5, Progress("root", 0, 64 * MIB)), (9.5, Progress("root", 0, 64 * MIB))]
    assert told(marks=still).stalls == (Stall("root", 4.5, 5.0),)
    anew = [(1.0, Progress("root", 9, 10)), (2.0, Progress("root", 0, 10)), (3.0, Progress("root", 2, 10))]
    assert report.rates(anew) == (Point(3.0, 2.0),)


def test_the_page_has_all_of_it() -> None:
    page = report_page.page(told())
    for words in (
        "vm: a to b", "180 ms", "a note", "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more", "written by the guest",
        "nothing came for", "4.0 s", "when the guest had arrived", "QEMU on b", "10.0.2", "one supervised ssh",
        "about to make: Folder on a", "copy-on-read", "Afterwards",
    ):  # fmt: skip
        assert words in page, words
    assert "<script" not in page


def test_the_page_needs_no_network() -> None:
    page = report_page.page(told())
    assert "default-src 'none'" in page
    for word in ("src=", "href=", "@import", "url(http"):
        assert word not in page.replace("default-src '", "")
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_its_pictures_are_whole() -> None:
    page = report_page.page(told())
    pictures = [ElementTree.fromstring(f"<svg{part.split('</svg>')[0]}</svg>") for part in page.split("<svg")[1:]]
    # Two timelines, memory, two of disks, one map.
    assert len(pictures) == 6
    for picture in pictures:
        width, height = (float(word) for word in str(picture.get("viewBox")).split()[2:])
        for element in picture.iter():
            for name, most in (("x", width), ("y", height), ("cx", width), ("cy", height)):
                assert 0 <= float(element.get(name, "0").removesuffix("%")) <= max(most, 100)


def test_a_page_of_what_was_broken_off_at_once() -> None:
    page = report_page.page(told(ENTRIES[:2], []))
    assert "It did not come so far" in page
    assert "prepare began after 500 ms, and has no end here." in page
    assert "No sample" in page


def test_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEMU_ESD_STATE", str(tmp_path))
    with store.begin(plan()) as journal:
        for _, entry in ENTRIES:
            journal.append(entry)
    for _, mark in MARKS:
        trail.append("0badcafe", mark)
    with trail.path_of("0badcafe").open("a") as stream:
        stream.write('{"time": 1, "mark": {"kind": "Of another version"}}\nnonsense\n{"time": 1, "ma')
    found = report.of("vm")
    assert found.state == State.SETTLED
    assert [one.text for one in found.said] == ["a note", "<script>alert(1)</script> & more"]
    assert len(lines.times(store.path_of("0badcafe"))) == len(ENTRIES) + 1
    trail.path_of("0badcafe").unlink()
    assert report.of("0badcafe").samples == {}


def test_steps_come_from_a_trace(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    step = {"ph": "X", "cat": "step", "name": "prepare", "ts": 2e6, "dur": 5e5}
    file.write_text(json.dumps({"traceEvents": [{"ph": "M"}, step, {**step, "cat": "QMP"}, {**step, "ts": 1e6}]}))
    steps = tuple(report.read_steps(file))
    assert [(one.name, one.began, one.took) for one in steps] == [("prepare", 1.0, 0.5), ("prepare", 2.0, 0.5)]
    assert "Steps of the command" in report_page.page(replace(told(), steps=steps))
    for wrong in ("no json", "[]", '{"traceEvents": [{"cat": "step"}]}'):
        file.write_text(wrong)
        with pytest.raises(UsageError, match="is no trace"):
            list(report.read_steps(file))
