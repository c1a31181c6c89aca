"""The pattern on the disks: what fill() writes is what expected() says, and names its own place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.pattern import FILLS, MAX_SEED, MIB, SECTOR, Fill, expected, fill

SIZE = 5 * MIB + 3 * SECTOR + 100  # ends within a sector
fills = st.sampled_from(sorted(FILLS))
seeds = st.integers(0, MAX_SEED)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[Fill, Path]:
    directory = tmp_path_factory.mktemp("pattern")
    paths: dict[Fill, Path] = {name: directory / name for name in FILLS}
    for name, path in paths.items():
        fill(path, SIZE, 7, name)
    return paths


@given(st.data(), fills)
@settings(max_examples=200)
def test_expected_is_what_fill_wrote(images: dict[Fill, Path], data: st.DataObject, name: Fill) -> None:
    offset = data.draw(st.integers(0, SIZE))
    length = data.draw(st.integers(0, SIZE - offset))
    with images[name].open("rb") as file:
        file.seek(offset)
        assert file.read(length) == expected(7, name, offset, length)


@given(seeds, fills, st.integers(0, 1 << 40), st.integers(0, 3 * MIB), st.integers(0, 3 * MIB))
@settings(max_examples=50)
def test_expected_of_a_range_is_expected_of_its_parts(seed: int, name: Fill, offset: int, one: int, two: int) -> None:
    parts = expected(seed, name, offset, one) + expected(seed, name, offset + one, two)
    assert expected(seed, name, offset, one + two) == parts


@given(seeds, seeds, st.integers(0, 1 << 31), st.integers(0, 1 << 31))
def test_no_two_sectors_are_alike_and_none_is_zero(seed: int, other: int, one: int, two: int) -> None:
    first = expected(seed, "full", one * SECTOR, SECTOR)
    second = expected(other, "full", two * SECTOR, SECTOR)
    assert first != bytes(SECTOR)
    assert (first == second) == ((seed, one) == (other, two))


def test_no_sector_looks_like_a_partition_table() -> None:
    """A sector ends with its seed; the one seed that would make it end in 55 aa is not allowed."""
    assert expected(MAX_SEED, "full", 0, SECTOR)[-2:] == MAX_SEED.to_bytes(2, "little")
    with pytest.raises(ValueError, match="seed"):
        expected(0xAA55, "full", 0, SECTOR)


def test_sizes_and_holes(images: dict[Fill, Path]) -> None:
    assert {path.stat().st_size for path in images.values()} == {SIZE}
    used = {name: path.stat().st_blocks * 512 for name, path in images.items()}
    assert used["none"] == 0
    assert used["sparse"] == MIB
    assert used["holes"] < used["full"]
    assert images["holes"].read_bytes()[3 * MIB : 4 * MIB] == bytes(MIB)


def test_the_first_words_are_fixed() -> None:
    """The guest computes the same in C: seed in the top 16 bits, the sector's number plus one below."""
    assert expected(7, "full", 2 * SECTOR, 8).hex() == "0300000000000700"


@pytest.mark.parametrize(("seed", "name"), [(-1, "full"), (MAX_SEED + 1, "full"), (1, "ful")])
def test_bad_arguments_are_refused(tmp_path: Path, seed: int, name: Fill) -> None:
    with pytest.raises(ValueError, match=str(seed) if name == "full" else name):
        fill(tmp_path / "image", MIB, seed, name)
    assert not (tmp_path / "image").exists()


def test_command_line(tmp_path: Path) -> None:
    path = tmp_path / "with space"
    script = Path(__file__).parents[2] / "images" / "pattern.py"
    subprocess.run([sys.executable, str(script), str(path), "2M", "--seed", "9", "--fill", "full"], check=True)
    assert path.read_bytes() == expected(9, "full", 0, 2 * MIB)
