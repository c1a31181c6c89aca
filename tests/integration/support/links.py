"""Links between lab hosts that are not as they should be, for a while."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from qemu_esd.hosts import lab


@asynccontextmanager
async def cut(one: str, other: str) -> AsyncIterator[None]:
    link = await lab.link_between(one, other)
    async with _instead(link, replace(link, up=False)):
        yield


@asynccontextmanager
async def slow(one: str, other: str, rate: int) -> AsyncIterator[None]:
    """`rate`: bytes per second, each way."""
    link = await lab.link_between(one, other)
    async with _instead(link, replace(link, rate=rate)):
        yield


@asynccontextmanager
async def _instead(link: lab.Link, changed: lab.Link) -> AsyncIterator[None]:
    await lab.set_link(changed)
    try:
        yield
    finally:
        await lab.set_link(link)
