"""The map of a whole disk in one pass, for several metadata contexts at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import chain

from qemu_esd.nbd.errors import NbdMapTooLargeError, NbdProtocolError
from qemu_esd.nbd.extents import Extent, Range, clip, merge
from qemu_esd.nbd.spread import spread
from qemu_esd.nbd.wire import MAX_MIN_BLOCK

MAX_REQUEST = (1 << 32) - MAX_MIN_BLOCK  # the largest length in 32 bits that every block size divides
WIDTH = 8
MAX_EXTENTS = 1 << 21  # about 300 MB of Python objects; also the end of a server that feeds us crumbs

Maps = dict[str, list[Extent]]
AskStatus = Callable[[int, int], Awaitable[Mapping[str, Sequence[Extent]]]]


async def walk(ask: AskStatus, contexts: Sequence[str], whole: Range, block: int) -> Maps:
    """The extents of `whole` per context, neighbours of equal flags merged.

    `ask(offset, length)` is one block status request; `block` is the smallest block of the export.
    """
    pass_ = _Pass(ask, contexts, block)
    await spread(enumerate(segments(whole)), pass_.segment, WIDTH)
    return {name: merge(pass_.in_order(name)) for name in contexts}


def segments(whole: Range) -> Iterator[Range]:
    """`whole` cut into the largest requests that the protocol can carry."""
    for offset in range(whole.offset, whole.end, MAX_REQUEST):
        yield Range(offset, min(MAX_REQUEST, whole.end - offset))


def reached(maps: Mapping[str, Sequence[Extent]], asked: Range, block: int) -> int:
    """How far an answer goes in every context, rounded down to a block that can be asked from next.

    QEMU can end an answer within a block, where a backing image has smaller blocks than the top.
    """
    end = min(asked.end, min(extents[-1].end for extents in maps.values()))
    if end < asked.end:
        end -= end % block
    if end <= asked.offset:
        raise NbdProtocolError(what="block status", detail=f"no progress at {asked.offset}")
    return end


class _Pass:
    """The parts of the map that are known, per segment, and how many more there may be."""

    def __init__(self, ask: AskStatus, contexts: Sequence[str], block: int) -> None:
        self._ask = ask
        self._contexts = contexts
        self._block = block
        self._parts: dict[int, Maps] = {}
        self._left = MAX_EXTENTS

    async def segment(self, numbered: tuple[int, Range]) -> None:
        number, asked = numbered
        part = self._parts[number] = {name: [] for name in self._contexts}
        while asked.length:
            answer = await self._ask(asked.offset, asked.length)
            maps = {name: answer[name] for name in self._contexts}
            self._spend(sum(map(len, maps.values())))
            end = reached(maps, asked, self._block)
            for name, extents in maps.items():
                part[name] += clip(extents, end)
            asked = Range(end, asked.end - end)

    def in_order(self, name: str) -> Iterator[Extent]:
        return chain.from_iterable(self._parts[number][name] for number in sorted(self._parts))

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise NbdMapTooLargeError(what="map of the disk", detail=f"more than {MAX_EXTENTS} extents")
