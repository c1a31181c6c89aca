"""Which reads the benchmarks make, and what is made of fio's answers."""

from __future__ import annotations

import pytest

from qemu_esd.graph.handlers import on_demand
from tests.bench.reads import amplification, speed
from tests.bench.reads.instrument import Reading, iolog, reading, together
from tests.bench.reads.series import KIB, MIB, Read, Series, dealt, room

RANDOM = Series("random", 4 * KIB, 1, 40, grain=64 * KIB)
IN_A_ROW = Series("row", MIB, 4, 3)


def report(error: int = 0) -> dict[str, object]:
    read = {"total_ios": 2, "io_bytes": 8192, "runtime": 500, "lat_ns": {"percentile": {"50.000000": 250000}}}
    return {"jobs": [{"error": error, "read": read}]}


def test_no_read_is_in_the_cluster_of_another() -> None:
    clusters = [read.offset // (64 * KIB) for _, one, reads in dealt([RANDOM], 5) for read in reads]

    assert len(set(clusters)) == len(clusters) == 5 * RANDOM.count
    assert clusters != sorted(clusters)


def test_series_do_not_overlap_and_stay_on_the_disk() -> None:
    ends = 0
    for _, one, reads in dealt([RANDOM, IN_A_ROW], 2):
        assert min(read.offset for read in reads) >= ends
        ends = max(read.offset + read.length for read in reads)
        assert len(reads) == one.count
        assert all(read.offset % (4 * KIB) == 0 for read in reads)
    assert ends <= room([RANDOM, IN_A_ROW], 2)


def test_a_row_is_without_gaps() -> None:
    (_, _, reads), *_ = dealt([IN_A_ROW], 1)

    assert reads == [Read(number * MIB, MIB) for number in range(3)]


def test_fio_is_told_each_read_in_its_order() -> None:
    lines = iolog([Read(8192, 4096), Read(0, 4096)]).splitlines()

    assert lines[0] == "fio version 2 iolog"
    assert [line for line in lines if " read " in line] == ["disk read 8192 4096", "disk read 0 4096"]


def test_fios_report_is_taken_only_if_every_read_came_back() -> None:
    assert reading(report(), 2) == Reading(2, 8192, 0.5, 0.25)
    with pytest.raises(AssertionError, match="2 of 3"):
        reading(report(), 3)
    with pytest.raises(AssertionError, match="error 5"):
        reading(report(error=5), 2)


def test_rounds_are_added_up() -> None:
    both = together([Reading(2, 8, 1.0, 0.5), Reading(4, 16, 2.0, 1.5)])

    assert both == Reading(6, 24, 3.0, 1.0)


def test_figures_have_the_names_of_the_measures() -> None:
    seen = [(one, Reading(10, 40960, 0.5, 0.2)) for one in (*speed.SERIES, *speed.SERIES)]

    figures = speed.figures(speed.by_series(seen))

    assert figures == {"latency": 0.2, "alone": 20.0, "many": 20.0, "row": 81920.0}
    assert set(figures) == {measure.name for measure in speed.MEASURES}


def test_cost_is_per_byte_read() -> None:
    figures = amplification.figures(Reading(1, 4096, 0.5, 0.2), sent=8192, stored=65536)

    assert figures == {"link": 2.0, "stored": 16.0, "latency": 0.2, "rate": 8192.0}
    assert set(figures) == {measure.name for measure in amplification.BENCH.measures}


def test_an_overlay_of_the_measurement_has_other_clusters_only_meanwhile() -> None:
    usual = on_demand.overlay_options(512)

    with amplification._clusters_of("128k"):
        assert on_demand.overlay_options(512) == {"cluster_size": "128k"}

    assert on_demand.overlay_options(512) == usual
