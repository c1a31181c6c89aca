"""Random bytes, and good conversations with a blot: every call ends, and with an error of this package."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_esd import nbd
from qemu_esd.nbd import (
    ALLOCATION_DEPTH,
    NbdClientError,
    NbdConnectionError,
    NbdDisconnected,
    NbdProtocolError,
)
from tests.nbd import fake
from tests.nbd.fake import HANDSHAKE, SECONDS, chunk, peer, simple

GOOD_ANSWERS = (
    chunk(1, fake.DATA, fake.data(0, bytes(4096))),
    chunk(2, fake.STATUS, fake.status((4096, 0), (4096, 1))),
    simple(3),
    chunk(4, 0),
    chunk(5, fake.STATUS, fake.status((4096, 0), (fake.SIZE - 4096, 2))),
)


async def test_good_answers_are_understood() -> None:
    outcomes = await everything(HANDSHAKE, *GOOD_ANSWERS)
    assert not any(isinstance(outcome, BaseException) for outcome in outcomes)


@given(noise=st.binary(max_size=200))
def test_noise_instead_of_a_handshake(noise: bytes) -> None:
    (outcome,) = asyncio.run(everything(noise))
    assert isinstance(outcome, NbdProtocolError | NbdDisconnected)


@given(noise=st.binary(max_size=200))
def test_noise_instead_of_answers(noise: bytes) -> None:
    outcomes = asyncio.run(everything(HANDSHAKE, noise))
    assert all(isinstance(outcome, NbdProtocolError | NbdDisconnected) for outcome in outcomes)


@settings(max_examples=300)
@given(st.data())
def test_a_good_conversation_with_a_blot(data: st.DataObject) -> None:
    parts = [HANDSHAKE, *GOOD_ANSWERS]
    number = data.draw(st.integers(0, len(parts) - 1), label="part")
    start = data.draw(st.integers(0, min(len(parts[number]), 400)), label="start")
    cut = data.draw(st.integers(0, 8), label="cut")
    blot = data.draw(st.binary(max_size=12), label="blot")
    parts[number] = parts[number][:start] + blot + parts[number][start + cut :]
    # After a blotted handshake there is silence: a peer that waits for requests would wait for ever.
    for outcome in asyncio.run(everything(*(parts if number else parts[:1]))):
        assert isinstance(outcome, NbdClientError) or not isinstance(outcome, BaseException)


async def everything(said: bytes, *answers: bytes) -> list[object]:
    """All requests at once, to one who says that and hangs up; what became of each."""
    async with asyncio.timeout(SECONDS), peer(said, *answers) as streams:
        try:
            async with nbd.open(*streams, "disk", [ALLOCATION_DEPTH]) as client:
                calls = (
                    client.read_small(0, 4096),
                    client.block_status(ALLOCATION_DEPTH, 0, 8192),
                    client.cache(0, 4096),
                    client.flush(),
                    client.map(),
                )
                return list(await asyncio.gather(*calls, return_exceptions=True))
        except NbdConnectionError as refused:
            return [refused]
