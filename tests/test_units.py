"""Sizes, rates and durations: what people write is read as they mean it, and anything else is refused."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.errors import UsageError
from qemu_esd.units import GIB, KIB, MIB, TIB, human_bytes, human_seconds, parse_rate, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("1k", KIB),
        ("64M", 64 * MIB),
        ("64MiB", 64 * MIB),
        ("64mb", 64 * MIB),
        (" 1.5 G ", 3 * GIB // 2),
        ("2T", 2 * TIB),
        ("1P", 1024 * TIB),
    ],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1e3", "1,5G", "64X", "0x10", "1.5.5M", ".5G", "64 MiB/s", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(text))):
        parse_size(text)


@given(st.text())
def test_a_size_is_read_or_refused_and_never_negative(text: str) -> None:
    with suppress(UsageError):
        assert parse_size(text) >= 0


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100M", 100 * MIB),
        ("100MB/s", 100 * MIB),
        ("100MiB/s", 100 * MIB),
        ("1gbit", 125_000_000),
        ("1Gbit/s", 125_000_000),
        ("8kbit", 1000),
        ("0.5mbit", 62_500),
    ],
)
def test_rates_are_bytes_unless_they_say_bits(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["fast", "/s", "1gbit/h", "bit", "-5M"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_rate(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (KIB, "1.0 KiB"),
        (64 * KIB, "64.0 KiB"),
        (MIB - 1, "1.0 MiB"),
        (3 * GIB // 2, "1.5 GiB"),
        (5 * TIB, "5.0 TiB"),
        (2048 * TIB, "2.0 PiB"),
    ],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert human_bytes(count) == text


@given(st.integers(0, 1 << 60))
def test_bytes_for_people_are_near_to_what_they_say(count: int) -> None:
    number, unit = human_bytes(count).split()
    power = ("B", "KiB", "MiB", "GiB", "TiB", "PiB").index(unit)
    assert float(number) * 1024**power == pytest.approx(count, rel=0.06)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0854, "85 ms"),
        (3.24, "3.2 s"),
        (0.9996, "1.0 s"),
        (59.9, "59.9 s"),
        (59.96, "1 min 0 s"),
        (60, "1 min 0 s"),
        (250, "4 min 10 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


@given(st.floats(0, 1e6))
def test_no_duration_is_told_in_more_than_its_unit_holds(seconds: float) -> None:
    """Never "1000 ms", "60.0 s" or "60 min"."""
    limits = {"ms": 1000, "s": 60, "min": 60}
    for number, unit in re.findall(r"([\d.]+) (ms|s|min)", human_seconds(seconds)):
        assert float(number) < limits[unit]


@given(st.integers(0, 1 << 59))
def test_no_size_is_told_in_more_than_its_unit_holds(count: int) -> None:
    """Never "1024.0 KiB"."""
    assert float(human_bytes(count).split()[0]) < 1024
