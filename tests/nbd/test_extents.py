"""The pure questions, each against a model that looks at every block by itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.nbd import Extent, Range, Residence, Residency, Status, Where, absent, combine, common, residency
from qemu_esd.nbd.extents import clip, merge
from qemu_esd.nbd.fill import chunks

Maps = tuple[list[Extent], list[Extent]]


def blocks(extents: list[Extent]) -> list[int]:
    return [extent.flags for extent in extents for _ in range(extent.length)]


@st.composite
def maps(draw: st.DrawFn) -> Maps:
    """A depth map and a base map of one disk, cut at different places."""
    pieces = cut(draw(st.integers(1, 40)), st.integers(0, 3))
    return draw(pieces), draw(pieces)


def cut(size: int, flags: st.SearchStrategy[int]) -> st.SearchStrategy[list[Extent]]:
    borders = st.sets(st.integers(1, size), max_size=8).map(lambda inner: sorted({0, size, *inner}))
    return borders.flatmap(
        lambda at: st.lists(flags, min_size=len(at) - 1, max_size=len(at) - 1).map(
            lambda values: [Extent(a, b - a, flag) for (a, b), flag in zip(pairwise(at), values, strict=True)]
        )
    )


@given(maps())
def test_merge_keeps_every_block_and_leaves_no_equal_neighbours(
    two: Maps,
) -> None:
    merged = merge(two[0])
    assert blocks(merged) == blocks(two[0])
    assert all(before.flags != after.flags for before, after in pairwise(merged))


def test_merge_does_not_bridge_a_gap() -> None:
    apart = [Extent(0, 1, 5), Extent(2, 1, 5)]
    assert merge(apart) == apart


@given(maps(), st.integers(0, 50))
def test_clip_is_a_prefix(two: Maps, end: int) -> None:
    assert blocks(clip(two[0], end)) == blocks(two[0])[:end]


@given(maps())
def test_combine_says_of_every_block_what_both_maps_say(two: Maps) -> None:
    both = combine(*two)
    assert [part.depth for part in both for _ in range(part.length)] == blocks(two[0])
    assert [part.base for part in both for _ in range(part.length)] == blocks(two[1])
    assert [part.offset for part in both] == [sum(p.length for p in both[:n]) for n in range(len(both))]


@pytest.mark.parametrize(
    ("depth", "base"),
    [
        ([Extent(0, 4, 1)], [Extent(0, 5, 0)]),
        ([Extent(0, 4, 1)], [Extent(1, 3, 0)]),
        ([Extent(0, 4, 1)], []),
        ([Extent(0, 1, 1), Extent(2, 2, 1)], [Extent(0, 4, 0)]),
    ],
    ids=["longer", "later", "empty", "gap"],
)
def test_maps_of_different_ranges_are_refused(depth: list[Extent], base: list[Extent]) -> None:
    with pytest.raises(ValueError, match="map"):
        combine(depth, base)


def test_nothing_combines_to_nothing() -> None:
    assert combine([], []) == []
    assert residency([], []) == Residency((), 0, 0, 0)


@given(maps())
def test_absent_is_every_block_that_is_not_at_depth_one(two: Maps) -> None:
    found = absent(two[0])
    missing = {block for part in found for block in range(part.offset, part.end)}
    assert missing == {block for block, depth in enumerate(blocks(two[0])) if depth != 1}
    assert all(before.end < after.offset for before, after in pairwise(found))


@given(maps())
def test_common_is_every_block_that_is_in_both(two: Maps) -> None:
    lists = [[Range(part.offset, part.length) for part in one if part.flags == 1] for one in two]
    found = common(*lists)
    want = {at for at, both in enumerate(zip(*map(blocks, two), strict=True)) if both == (1, 1)}
    assert {block for part in found for block in range(part.offset, part.end)} == want
    assert sum(part.length for part in found) == len(want)


@given(maps())
def test_residency_of_every_block(two: Maps) -> None:
    found = residency(*two)
    states = [part.state for part in found.ranges for _ in range(part.length)]
    expected = [
        Where.LOCAL if depth == 1 else Where.HOLE if base & 2 else Where.REMOTE
        for depth, base in zip(blocks(two[0]), blocks(two[1]), strict=True)
    ]
    assert states == expected
    totals = (found.local_bytes, found.remote_bytes, found.hole_bytes)
    assert totals == tuple(expected.count(state) for state in (Where.LOCAL, Where.REMOTE, Where.HOLE))
    assert sum(part.length for state in Where for part in found.where(state)) == len(expected)


def test_a_small_disk_by_hand() -> None:
    depth = [Extent(0, 10, 2), Extent(10, 10, 1), Extent(20, 10, 0)]
    base = [Extent(0, 5, 0), Extent(5, 10, 3), Extent(15, 15, 2)]
    assert combine(depth, base) == [
        Status(0, 5, 2, 0),
        Status(5, 5, 2, 3),
        Status(10, 5, 1, 3),
        Status(15, 5, 1, 2),
        Status(20, 10, 0, 2),
    ]
    assert absent(depth) == [Range(0, 10), Range(20, 10)]
    assert residency(depth, base).ranges == (
        Residence(0, 5, Where.REMOTE),
        Residence(5, 5, Where.HOLE),
        Residence(10, 10, Where.LOCAL),
        Residence(20, 10, Where.HOLE),
    )


@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 30)), max_size=5),
    st.integers(1, 10),
    st.sampled_from([1, 2, 4]),
    st.integers(60, 140),
)
def test_chunks_cover_the_blocks_of_the_ranges(
    wanted: list[tuple[int, int]], blocks_per_chunk: int, block: int, size: int
) -> None:
    chunk = blocks_per_chunk * block
    ranges = [Range(offset, length) for offset, length in wanted if length]
    for asked in ranges:
        found = list(chunks([asked], chunk, block, size))
        covered = [byte for part in found for byte in range(part.offset, part.end)]
        first, last = asked.offset // block * block, -(-asked.end // block) * block
        assert covered == list(range(first, min(last, size)))
        assert all(part.offset % block == 0 and 0 < part.length <= chunk for part in found)
        assert all(part.offset // chunk == (part.end - 1) // chunk for part in found)
    together = [part for asked in ranges for part in chunks([asked], chunk, block, size)]
    assert list(chunks(ranges, chunk, block, size)) == together
