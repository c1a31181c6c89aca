"""The map of a whole disk in one pass, for several metadata contexts at once.

A request is kept short in *time*: the server answers it as one piece of work, asking a backing on another host for each
extent, and everything that drains the graph (a swap of nodes, a reopen) waits for it with the guest's I/O stopped.
Measured: one request over a fragmented disk held a guest for 25 s. So the length adapts to how quick the answers come.

A source that cannot read a sector fails every request that touches it: such a request is halved until the piece is
small, and of that nothing is known but that it is not local, for what is local is told without asking the source.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from errno import EIO

from qemu_esd.nbd.errors import NbdError, NbdMapTooLargeError, NbdProtocolError
from qemu_esd.nbd.extents import Extent, Range, clip, merge

MAX_REQUEST = 1 << 31  # in 32 bits; every block size divides it, and what is left of it when it is halved
MIN_REQUEST = 1 << 20
FIRST_REQUEST = 16 << 20
QUICK_SECONDS, SLOW_SECONDS = 0.01, 0.05
FEW_PIECES = 8
UNTOLD = 16 << 10  # the cluster of an overlay: all of it local, or nothing
MAX_UNTOLD = 1024  # with more of them it is no matter of some sectors
MAX_EXTENTS = 1 << 21  # about 300 MB of Python objects; also the end of a server that feeds us crumbs

Maps = dict[str, list[Extent]]
AskStatus = Callable[[int, int], Awaitable[Mapping[str, Sequence[Extent]]]]


@dataclass(frozen=True)
class Pace:
    """How many bytes the next request asks about."""

    length: int = FIRST_REQUEST

    def after(self, seconds: float, pieces: int) -> Pace:
        """Longer after a quick answer, shorter after a slow one, of however many `pieces` it was."""
        if seconds > SLOW_SECONDS:
            return self.of(max(MIN_REQUEST, self.length // 2))
        return self.of(min(MAX_REQUEST, self.length * 4)) if seconds < QUICK_SECONDS else self

    def of(self, length: int) -> Pace:
        return replace(self, length=length)


@dataclass(frozen=True)
class PaceByPieces(Pace):
    """For an export that is nothing but a link: what it asks the other end is one question for each piece, however long
    that is. So a slow answer of few pieces is the link's, and a shorter request would be as slow.
    """

    def after(self, seconds: float, pieces: int) -> Pace:
        if pieces > FEW_PIECES:
            return super().after(seconds, pieces)
        return self.of(min(MAX_REQUEST, self.length * 4))


BY_TIME, BY_PIECES = Pace(), PaceByPieces()


async def walk(
    ask: AskStatus,
    contexts: Sequence[str],
    whole: Range,
    block: int,
    max_untold: int = MAX_UNTOLD,
    pace: Pace = BY_TIME,
) -> Maps:
    """The extents of `whole` per context, neighbours of equal flags merged.

    `ask(offset, length)` is one block status request; `block` is the smallest block of the export. NbdError when
    nothing can be told of more than `max_untold` pieces. `pace` says how long the requests are.
    """
    found: Maps = {name: [] for name in contexts}
    offset, untold = whole.offset, 0
    while offset < whole.end:
        asked = Range(offset, min(pace.length, whole.end - offset))
        start = time.monotonic()
        try:
            answer = await ask(asked.offset, asked.length)
        except NbdError as error:
            if error.errno != EIO or untold == max_untold:
                raise
            if (shorter := _shorter(asked)) < asked.length:
                pace = pace.of(shorter)
                continue
            answer, untold = _unknown(asked, contexts), untold + 1
        pace = pace.after(time.monotonic() - start, max(map(len, answer.values())))
        offset = _take(found, {name: answer[name] for name in contexts}, asked, block)
    return {name: merge(extents) for name, extents in found.items()}


def _shorter(asked: Range) -> int:
    """How much to ask about next, where nothing can be told of `asked`: half, and at least the cluster it begins in."""
    half = asked.length // 2
    return max(half - half % UNTOLD, UNTOLD - asked.offset % UNTOLD)


def _unknown(asked: Range, contexts: Sequence[str]) -> Mapping[str, Sequence[Extent]]:
    """Flags 0 in every context: not local, and data."""
    return {name: [Extent(asked.offset, asked.length, 0)] for name in contexts}


def _take(found: Maps, maps: Mapping[str, Sequence[Extent]], asked: Range, block: int) -> int:
    """Add an answer to what is known; returns where to ask next."""
    if sum(map(len, (*found.values(), *maps.values()))) > MAX_EXTENTS:
        raise NbdMapTooLargeError(what="map of the disk", detail=f"more than {MAX_EXTENTS} extents")
    end = reached(maps, asked, block)
    for name, extents in maps.items():
        found[name] += clip(extents, end)
    return end


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
