"""Several awaits at a time over a list of work that may be long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def spread(items: Iterable[T], work: Callable[[T], Awaitable[None]], width: int) -> None:
    """Await `work(item)` for every item, `width` at a time, taking items only as they are needed.

    The first failure cancels the rest and is raised as it is.
    """
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await work(item)

    workers = [asyncio.create_task(worker()) for _ in range(width)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
