"""The map of a range, from answers that end wherever they like."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_esd.nbd import Extent, NbdProtocolError, Range
from qemu_esd.nbd.extents import clip, merge
from qemu_esd.nbd.spread import spread
from qemu_esd.nbd.walk import MAX_REQUEST, reached, segments, walk

unhurried = settings(deadline=None)  # a busy machine is no failure
GIB = 1 << 30
BLOCK = 512


@unhurried
@given(data=st.data(), disk=st.lists(st.integers(0, 2), min_size=1, max_size=30), start=st.integers(0, 5))
def test_answers_of_any_length_add_up_to_the_map(data: st.DataObject, disk: list[int], start: int) -> None:
    """`disk` has one flag per half block, so that answers can end within a block."""
    half = BLOCK // 2
    size = len(disk) * half
    first = min(start * BLOCK, size - size % BLOCK)
    whole = Range(first, size - first)
    truth = {
        "a": [Extent(number * half, half, flag) for number, flag in enumerate(disk)],
        "b": [Extent(number * half, half, 9 - flag) for number, flag in enumerate(disk)],
    }

    async def ask(offset: int, length: int) -> Mapping[str, Sequence[Extent]]:
        assert offset % BLOCK == 0
        answer = {}
        for name, extents in truth.items():
            end = offset + data.draw(st.integers(min(BLOCK, length), length))
            answer[name] = clip([part for part in extents if part.offset >= offset], end)
        return answer

    found = asyncio.run(walk(ask, ["a", "b"], whole, BLOCK))
    for name, extents in truth.items():
        assert found[name] == merge(part for part in extents if part.offset >= whole.offset)


@pytest.mark.parametrize("size", [1, MAX_REQUEST, MAX_REQUEST + 512, 1 << 40])
def test_segments_are_as_large_as_the_protocol_allows(size: int) -> None:
    found = list(segments(Range(0, size)))
    assert sum(part.length for part in found) == size
    assert all(before.end == after.offset for before, after in pairwise(found))
    assert len(found) == -(-size // MAX_REQUEST)
    assert all(0 < part.length < 4 * GIB and part.offset % (1 << 16) == 0 for part in found)


def test_an_answer_within_the_first_block_is_no_progress() -> None:
    with pytest.raises(NbdProtocolError, match="no progress"):
        reached({"a": [Extent(4096, 511, 0)]}, Range(4096, 8192), BLOCK)


async def test_spread_stops_at_the_first_failure_and_leaves_nothing_running() -> None:
    started: list[int] = []
    ended: list[int] = []

    async def work(item: int) -> None:
        started.append(item)
        try:
            if item == 2:
                raise KeyError(item)
            await asyncio.Event().wait()
        finally:
            ended.append(item)

    with pytest.raises(KeyError):
        await spread(range(10), work, 3)
    assert started == [0, 1, 2]
    assert sorted(ended) == started


async def test_spread_takes_only_as_much_as_it_works_on() -> None:
    many = iter(range(10_000))

    async def work(item: int) -> None:
        await asyncio.sleep(0)
        if item == 100:
            raise KeyError(item)

    with pytest.raises(KeyError):
        await spread(many, work, 4)
    assert next(many) < 200
