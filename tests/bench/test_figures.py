"""What is made of samples: medians, ratios of what ran side by side, the table, the pictures, JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from images.console import LoadLine
from qemu_esd.errors import UsageError
from qemu_esd.units import GIB, MIB, TIB
from tests.bench import degradation, hot, plot, table
from tests.bench.bench import Bench, Measure, Unit, turns
from tests.bench.outcome import Results, Sample, Spread, from_plain, measured, ratio, to_plain
from tests.bench.rows import Row, parse_row
from tests.bench.witness import Beat

FACTS = {
    "runs": 3,
    "bound_s": 60.0,
    "link_rate": None,
    "qemu": "QEMU 7.2",
    "accel": "tcg",
    "guest_memory_mib": 128,
    "cpus": 2,
    "cpu": "some",
    "kernel": "6.1",
}


def sample(way: str, run: int, running: float, row: str = "1 GiB") -> Sample:
    return Sample(row, way, run, {"running": running, "downtime": 20.0, "link": 1 << 20})


async def nothing(_: object) -> Results:
    raise NotImplementedError


RUNNING = Measure("running", "runs after", Unit.SECONDS, drawn="Seconds", logarithmic=True)
DOWNTIME = Measure("downtime", "downtime", Unit.MILLIS, drawn="Milliseconds")
OWN = Measure("qemu", "QEMU's own", Unit.MILLIS)
BENCH = Bench("switchover", "how long", ("fast", "slow"), (RUNNING, DOWNTIME, OWN), nothing)


def results(*samples: Sample) -> Results:
    return Results("switchover", "2026-01-01T00:00:00+00:00", dict(FACTS), samples)


FAST = tuple(sample("fast", run, running) for run, running in enumerate((1000.0, 3000.0, 2000.0)))
SLOW = tuple(sample("slow", run, running) for run, running in enumerate((4000.0, 6000.0, 10000.0)))
LATE = Sample("1 TiB", "slow", 0, None, "not finished within 60 s", unfinished=True)


def test_a_spread_is_of_what_arrived() -> None:
    assert measured((*FAST, replace(LATE, way="fast")), "running") == Spread(2000.0, 1000.0, 3000.0, 3)
    assert measured(FAST, "qemu") is None


def test_a_ratio_compares_run_by_run() -> None:
    # 4/1, 6/3, 10/2: not the ratio of the medians, which is 3.
    assert ratio(SLOW, FAST, "running") == Spread(4.0, 2.0, 5.0, 3)
    assert ratio(SLOW[1:2], FAST, "running") == Spread(2.0, 2.0, 2.0, 1)
    assert ratio((LATE,), FAST, "running") is None


def test_the_table_tells_medians_ranges_and_what_did_not_arrive() -> None:
    lines = table.markdown(BENCH, results(*FAST, *SLOW, sample("fast", 0, 1500.0, "1 TiB"), LATE)).splitlines()

    assert lines[2].startswith("| 1 GiB | fast | 2.00 s (1.00 s to 3.00 s) | 20 ms (20 ms to 20 ms) | - |")
    assert lines[4].startswith("|  | *slow / fast* | *x 4* |")
    assert lines[5].startswith("| 1 TiB | fast | 1.50 s |")
    assert lines[6].startswith("|  | slow | not finished within 60 s | - |")
    assert len({line.count("|") for line in lines[:8]}) == 1


def test_a_comparison_is_now_against_then() -> None:
    text = table.comparison(BENCH, results(*SLOW), results(*(replace(one, way="slow") for one in FAST)))

    assert "| 1 GiB | slow | x 3.00 | x 1.00 |" in text


def test_who_is_first_changes_from_run_to_run() -> None:
    order = [(run, row, way) for run, row, way in turns(2, ("one",), ("fast", "slow"))]

    assert order == [(0, "one", "fast"), (0, "one", "slow"), (1, "one", "slow"), (1, "one", "fast")]


def test_results_survive_json() -> None:
    before = results(*FAST, LATE)

    assert from_plain(json.loads(json.dumps(to_plain(before)))) == before


@pytest.mark.parametrize("measure", [RUNNING, DOWNTIME], ids=["running", "downtime"])
def test_a_picture_shows_each_way_and_is_the_same_each_time(measure: Measure) -> None:
    shown = results(*FAST, *SLOW, sample("fast", 0, 1500.0, "1 TiB"), LATE)

    picture = plot.draw(BENCH, measure, shown)

    words = {element.text for element in ElementTree.fromstring(picture).iter()}
    assert {"fast", "slow", "1 GiB", "1 TiB"} <= words
    assert ("> 60" in words) == (measure is RUNNING)
    assert picture == plot.draw(BENCH, measure, shown)


def test_a_row_is_written_as_a_size_and_its_data() -> None:
    assert parse_row("1T:256M") == Row(TIB, 256 * MIB)
    assert parse_row("1G") == Row(GIB, GIB)
    assert (parse_row("1T:256M").name, parse_row("1G").name) == ("1 TiB, 256 MiB of data", "1 GiB, full")


@pytest.mark.parametrize("text", ["", "1G:2G", "1G:1M", "1000000", "1G:20000000"])
def test_a_row_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_row(text)


def test_99_of_100_took_at_most_the_upper_end_of_a_bin() -> None:
    bins = [0] * (len(degradation.BINS) + 1)
    assert degradation.p99(bins) is None
    bins[0], bins[5] = 99, 1
    assert degradation.p99(bins) == degradation.BINS[0] / 1e6
    bins[5] = 2
    assert degradation.p99(bins) == round(degradation.BINS[5] / 1e6, 3)
    bins[-1] = 10
    assert degradation.p99(bins) is None


def test_a_curve_has_a_point_for_each_line_of_the_guest() -> None:
    lines = ((10.0, 100, 3), (11.0, 300, 5), (13.0, 300, 900))
    beats = [Beat(at, "hostA", LoadLine("status", {"ops": str(ops), "istall": str(io)})) for at, ops, io in lines]
    points = degradation.points(beats, 10.5)
    assert points == ((0.5, 200.0, 5), (2.5, 0.0, 900))

    shown = replace(results(*FAST), facts={**FACTS, "series": {"one": points}})
    picture = plot.curve(shown, "Operations over time")
    words = {element.text for element in ElementTree.fromstring(picture).iter()}
    assert {"Operations over time", "one"} <= words
    assert picture == plot.curve(shown, "Operations over time")


def test_reads_that_the_source_answered(tmp_path: Path) -> None:
    """By what QEMU says of its copies on read: the guest reads 4 KiB at a time, who moves its disk reads more."""
    log = tmp_path / "log"
    line = "{}bdrv_co_do_copy_on_readv bs 0x55d0 offset 8192 bytes {} cluster_offset 0 cluster_bytes 16384"
    lines = [line.format("", 4096), line.format("17@1.5:", 4096), line.format("", 65536), "warning: bytes 4096 "]
    log.write_text("\n".join(lines))
    assert hot.guest_reads(log) == 2
    assert hot.per_second([0.1, 0.9, 2.5], 3.2) == [(0.0, 2.0), (1.0, 0.0), (2.0, 1.0), (3.0, 0.0)]
