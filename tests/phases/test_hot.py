"""Which parts of a disk are hot: by where the guest has been, and never by what we or the mirror have done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.nbd import Extent
from qemu_esd.phases.hot import REGION, Heat, absent_by_region, after, by_region, hottest
from tests.support.samples import MIB

REGIONS = 40
NUMBERS = st.integers(0, REGIONS - 1)
MAPS = st.dictionaries(NUMBERS, st.integers(1, REGION))
PAGE = 4096
# Lengths of extents, by turns local and not.
LENGTHS = st.lists(st.integers(1, 3 * REGION // PAGE).map(lambda pages: pages * PAGE), max_size=20)


def extents(lengths: list[int], first: int) -> list[Extent]:
    found, offset = list[Extent](), 0
    for number, length in enumerate(lengths, first):
        found.append(Extent(offset, length, number % 2))
        offset += length
    return found


@given(LENGTHS, st.integers(0, 1))
def test_each_local_byte_is_in_one_region(lengths: list[int], first: int) -> None:
    depth = extents(lengths, first)
    local = by_region(depth)
    assert sum(local.values()) == sum(extent.length for extent in depth if extent.flags == 1)
    assert all(0 < count <= REGION for count in local.values())
    for number, count in local.items():
        start, end = number * REGION, (number + 1) * REGION
        covered = [min(end, e.end) - max(start, e.offset) for e in depth if e.flags == 1]
        assert count == sum(length for length in covered if length > 0)


@given(LENGTHS, st.integers(0, 1))
def test_what_is_absent_of_a_region_is_what_is_not_local(lengths: list[int], first: int) -> None:
    depth = extents(lengths, first)
    absent, local = absent_by_region(depth), by_region(depth)
    assert sum(part.length for parts in absent.values() for part in parts) == sum(
        e.length for e in depth if not e.flags
    )
    for number, parts in absent.items():
        assert all(number * REGION <= part.offset and part.end <= (number + 1) * REGION for part in parts)
        assert all(not any(e.offset < part.end and part.offset < e.end for e in depth if e.flags) for part in parts)
        assert sum(part.length for part in parts) + local[number] <= REGION


@given(st.lists(st.tuples(MAPS, NUMBERS, st.integers(0, 5)), min_size=1, max_size=6))
def test_what_is_wanted(looks: list[tuple[dict[int, int], int, int]]) -> None:
    """Over several looks, after each of which some of what was wanted is asked for."""
    heat, seen = Heat(), set[int]()
    for local, first, asks in looks:
        before, asked = heat, heat.asked
        heat = after(heat, local, first)
        wanted = hottest(before, heat, first)
        seen |= {number for number in local if number >= first and number not in asked}
        assert heat.touched == seen
        # Each once; nothing that was asked for, that the mirror is at, or that is all here.
        assert len(set(wanted)) == len(wanted)
        assert not asked & set(wanted)
        assert all(number >= first and local.get(number, 0) < REGION for number in wanted)
        # Nothing far from where the guest has been; where it has been comes first.
        assert all({number - 1, number, number + 1} & seen for number in wanted)
        been = [number in seen for number in wanted]
        assert been == sorted(been, reverse=True)
        # And nothing of that is forgotten.
        missing = {n for n in seen if n >= first and n not in asked and local.get(n, 0) < REGION}
        assert missing <= set(wanted)
        heat = Heat(heat.local, heat.touched, heat.asked | set(wanted[:asks]))


def test_most_growth_comes_first() -> None:
    old = after(Heat(), {9: 3 * MIB, 20: MIB}, 2)
    now = after(old, {9: 3 * MIB, 20: MIB + PAGE, 30: PAGE * 2}, 2)
    assert hottest(old, now, 2) == [30, 20, 9, 8, 10, 19, 21, 29, 31]


def test_what_we_have_brought_is_not_where_the_guest_has_been() -> None:
    heat = Heat(asked=frozenset({10, 11}))
    now = after(heat, {10: REGION, 11: MIB}, 2)
    assert hottest(heat, now, 2) == []


def test_what_the_mirror_has_brought_is_not_either() -> None:
    now = after(Heat(), {0: REGION, 1: REGION, 2: MIB}, 3)
    assert hottest(Heat(), now, 3) == []
