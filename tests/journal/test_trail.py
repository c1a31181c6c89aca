"""The trail: what cannot be written or read is left out, and it has an end."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_esd.journal import shelf, trail
from qemu_esd.model.progress import Progress
from qemu_esd.model.trail import Remark, Snapshot, Versions

MARKS = (
    Progress("RAM", 1, 2, 3, 4),
    Remark("warning", "text"),
    Snapshot("end", "vda", 1, None, None),
    Versions("1", {"a": "2"}),
)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEMU_ESD_STATE", str(tmp_path / "controller"))


def test_what_is_written_is_read() -> None:
    for mark in MARKS:
        trail.append("1", mark)
    assert tuple(each.mark for each in trail.read("1")) == MARKS
    assert trail.path_of("1").stat().st_mode & 0o777 == 0o600
    # It is no journal.
    assert shelf.all_ids() == ()


def test_none_is_read_as_nothing() -> None:
    assert trail.read("2") == ()


def test_what_cannot_be_written_is_lost() -> None:
    trail.path_of("3").mkdir()
    trail.append("3", MARKS[0])
    assert trail.read("3") == ()


def test_it_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "MOST_BYTES", 500)
    for _ in range(100):
        trail.append("4", MARKS[1])
    assert trail.path_of("4").stat().st_size < 700


def test_samples_become_rarer() -> None:
    pace = trail.Pace()
    month = 30 * 86400
    kept = sum(pace.wants("vda", seconds / 2) for seconds in range(0, 2 * month, 7))
    assert 10 * trail.DOUBLED_AFTER < kept < 20 * trail.DOUBLED_AFTER
    assert pace.wants("vdb", month)


def test_the_first_minutes_are_whole() -> None:
    pace = trail.Pace()
    assert all(pace.wants("RAM", seconds / 2) for seconds in range(trail.DOUBLED_AFTER))
