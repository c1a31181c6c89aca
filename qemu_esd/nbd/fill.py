"""Make ranges of a disk local: NBD_CMD_CACHE on an export of the overlay.

The server reads each range and writes it to the overlay (QEMU makes it a copy on read). Nothing is remembered
here: after any interruption the allocation map says what is left.

QEMU writes a chunk as a zero cluster only if all that is missing in it reads as zeroes; a hole beside data
in one chunk is written out as zeroes and takes space. To keep a disk sparse fill what is REMOTE and not what is
HOLE (`residency`), or at least that first: by then the clusters at the borders are local and are left alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

from qemu_esd.nbd.client import Client
from qemu_esd.nbd.errors import NbdError
from qemu_esd.nbd.extents import Range
from qemu_esd.nbd.spread import spread

MIB = 1 << 20
MAX_CHUNK = 32 * MIB  # QEMU's NBD server refuses a larger NBD_CMD_CACHE


@dataclass(frozen=True, slots=True)
class FillError:
    """A chunk that could not be made local, and the server's reason. Not an exception: the others went on."""

    offset: int
    length: int
    errno: int


async def fill(
    client: Client,
    ranges: Iterable[Range],
    *,
    chunk: int = 4 * MIB,
    depth: int = 4,
    give_up: int | None = None,
    admit: Callable[[int], Awaitable[None]] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> list[FillError]:
    """Cache `ranges` with `depth` requests in flight; the chunks that failed, for the caller to retry.

    `chunk` is bytes, up to 32 MiB; nothing more is tried when `give_up` chunks have failed; each chunk is asked for
    when `admit(bytes)` returns; `on_progress` gets the bytes of each that is done. What is done is durable only after
    `client.flush()`. NbdConnectionError when the connection ends: then ask the map.
    """
    if not 0 < chunk <= MAX_CHUNK or chunk % client.min_block or depth < 1:
        raise ValueError(f"chunks of {chunk} bytes, {depth} at a time")
    failed: list[FillError] = []

    async def cache(piece: Range) -> None:
        if len(failed) == give_up:
            return
        if admit:
            await admit(piece.length)
        try:
            await client.cache(piece.offset, piece.length)
        except NbdError as error:
            failed.append(FillError(piece.offset, piece.length, error.errno))
            return
        if on_progress:
            on_progress(piece.length)

    await spread(chunks(ranges, chunk, client.min_block, client.size), cache, depth)
    return sorted(failed, key=lambda error: error.offset)


def chunks(ranges: Iterable[Range], chunk: int, block: int, size: int) -> Iterator[Range]:
    """`ranges` widened to whole blocks, within `size`, and cut at the multiples of `chunk`."""
    for wanted in ranges:
        offset = wanted.offset - wanted.offset % block
        end = min(wanted.end + -wanted.end % block, size)
        while offset < end:
            stop = min(end, offset - offset % chunk + chunk)
            yield Range(offset, stop - offset)
            offset = stop
