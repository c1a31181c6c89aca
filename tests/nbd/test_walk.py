"""The map of a range, from answers that end wherever they like."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from errno import EIO, EPERM

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.nbd import Extent, NbdError, NbdProtocolError, Range
from qemu_esd.nbd.extents import clip, merge
from qemu_esd.nbd.spread import spread
from qemu_esd.nbd.walk import (
    FIRST_REQUEST,
    MAX_REQUEST,
    MAX_UNTOLD,
    MIN_REQUEST,
    SLOW_SECONDS,
    UNTOLD,
    Pace,
    PaceByPieces,
    reached,
    walk,
)

GIB = 1 << 30
BLOCK = 512


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


async def lengths(seconds: float, count: int) -> list[int]:
    """How much the first `count` requests ask about when each answer takes `seconds`."""
    asked: list[int] = []

    async def ask(offset: int, length: int) -> Mapping[str, Sequence[Extent]]:
        asked.append(length)
        await asyncio.sleep(seconds)
        return {"a": [Extent(offset, length, 0)]}

    await walk(ask, ["a"], Range(0, FIRST_REQUEST * count), BLOCK)
    return asked[:count]


CLUSTER = UNTOLD


@pytest.mark.parametrize("size", [64 * CLUSTER, 64 * CLUSTER - 3 * BLOCK])
async def test_a_sector_of_which_nothing_can_be_told_counts_as_a_cluster_that_is_elsewhere(size: int) -> None:
    bad, asked = 37 * CLUSTER + 3 * BLOCK, list[int]()

    async def ask(offset: int, length: int) -> Mapping[str, Sequence[Extent]]:
        assert offset % BLOCK == 0 and (length % BLOCK == 0 or offset + length == size)
        asked.append(length)
        if offset <= bad < offset + length:
            raise NbdError(EIO, offset, length)
        return {"a": [Extent(offset, length, 1)]}

    found = await walk(ask, ["a"], Range(0, size), BLOCK)
    assert found["a"] == [
        Extent(0, 37 * CLUSTER, 1),
        Extent(37 * CLUSTER, CLUSTER, 0),
        Extent(38 * CLUSTER, size - 38 * CLUSTER, 1),
    ]
    assert len(asked) < 20


@pytest.mark.parametrize("errno", [EIO, EPERM])
async def test_a_server_that_can_tell_of_nothing_is_not_asked_for_every_cluster(errno: int) -> None:
    asked: list[int] = []

    async def ask(offset: int, length: int) -> Mapping[str, Sequence[Extent]]:
        asked.append(length)
        raise NbdError(errno, offset, length)

    with pytest.raises(NbdError):
        await walk(ask, ["a"], Range(0, 100 * GIB), BLOCK)
    assert len(asked) < 4 * MAX_UNTOLD


async def test_where_all_must_be_told_one_answer_that_is_none_is_the_end() -> None:
    async def ask(offset: int, length: int) -> Mapping[str, Sequence[Extent]]:
        if offset > 0:
            raise NbdError(EIO, offset, length)
        return {"a": [Extent(offset, length, 1)]}

    with pytest.raises(NbdError):
        await walk(ask, ["a"], Range(0, GIB), BLOCK, max_untold=0)


async def test_slow_answers_make_requests_shorter_so_that_nobody_waits_for_one_for_long() -> None:
    found = await lengths(2 * SLOW_SECONDS, 4)
    assert found == [FIRST_REQUEST, FIRST_REQUEST // 2, FIRST_REQUEST // 4, FIRST_REQUEST // 8]


@given(answers=st.lists(st.floats(0, 10), max_size=40))
def test_a_request_stays_within_what_is_useful_and_what_the_protocol_carries(answers: list[float]) -> None:
    pace = Pace()
    for seconds in answers:
        pace = pace.after(seconds, 1)
        assert MIN_REQUEST <= pace.length <= MAX_REQUEST and pace.length % (1 << 16) == 0
        assert pace.length < 4 * GIB


def test_quick_answers_make_requests_as_long_as_they_can_be() -> None:
    pace = Pace()
    for _ in range(10):
        pace = pace.after(0, 1)
    assert pace.length == MAX_REQUEST


def test_over_a_slow_link_few_pieces_are_asked_for_in_long_requests_and_many_in_short_ones() -> None:
    long: Pace = PaceByPieces()
    short: Pace = PaceByPieces()
    for _ in range(4):
        long, short = long.after(10 * SLOW_SECONDS, 2), short.after(10 * SLOW_SECONDS, 1000)
    assert (long.length, short.length) == (MAX_REQUEST, FIRST_REQUEST >> 4)


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
