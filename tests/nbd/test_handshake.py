"""The handshake with peers that are no NBD server, or say no, or say nothing."""

from __future__ import annotations

import pytest

from qemu_esd import nbd
from qemu_esd.nbd import ALLOCATION_DEPTH, NbdDisconnected, NbdProtocolError, NbdRefusedError
from qemu_esd.nbd import client as client_module
from tests.nbd import fake
from tests.nbd.fake import CONTEXTS, STRUCTURED, connected, peer

UNKNOWN_EXPORT = 6 | 1 << 31

GO_ACK = fake.option_reply(fake.GO, fake.ACK)
ASKED = fake.context(1, ALLOCATION_DEPTH)
REST = fake.option_reply(fake.SET_META_CONTEXT, fake.ACK) + fake.export() + GO_ACK

# What is wrong is wrong by itself: the rest of the handshake is good, and its last acknowledgement follows.
GARBAGE_IN_HANDSHAKE = {
    "another protocol": b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
    "oldstyle": fake.greeting(magic=b"NBDMAGIC" + bytes.fromhex("0000420281861253")),
    "magic of the greeting": fake.greeting(magic=b"NBDMAGICIHAVEOPS") + fake.HANDSHAKE[18:],
    "newstyle that is not fixed": fake.greeting(flags=0) + fake.HANDSHAKE[18:],
    "magic of an option reply": fake.greeting() + bytes(8) + fake.HANDSHAKE[26:],
    "reply to another option": fake.greeting() + fake.option_reply(fake.GO, fake.ACK),
    "huge option reply": fake.greeting() + fake.option_reply(fake.STRUCTURED_REPLY, fake.ACK, size=0xFFFFFFFF),
    "reply without sense": fake.greeting() + fake.option_reply(fake.STRUCTURED_REPLY, fake.INFO, b"what"),
    "context of two bytes": STRUCTURED + fake.option_reply(fake.SET_META_CONTEXT, fake.META_CONTEXT, b"ab") + REST,
    "context nobody asked for": STRUCTURED + ASKED + fake.context(1, "base:allocation") + REST,
    "context twice": STRUCTURED + ASKED * 2 + REST,
    "info among contexts": STRUCTURED + fake.option_reply(fake.SET_META_CONTEXT, fake.INFO, b"12345"),
    "no info about the export": CONTEXTS + fake.option_reply(fake.GO, fake.ACK),
    "info of one byte": CONTEXTS + fake.export() + fake.option_reply(fake.GO, fake.INFO, b"\x09"),
    "short info": CONTEXTS + fake.option_reply(fake.GO, fake.INFO, b"\0\0\0"),
    "size beyond all disks": CONTEXTS + fake.export(size=1 << 63),
    "blocks of no power of two": CONTEXTS + fake.export() + fake.blocks(low=513),
    "blocks of zero bytes": CONTEXTS + fake.export() + fake.blocks(low=0),
    "blocks larger than the protocol's": CONTEXTS + fake.export() + fake.blocks(low=1 << 17, preferred=1 << 17),
    "largest block below the smallest": CONTEXTS + fake.export() + fake.blocks(low=4096, high=512),
    "infos without an end": CONTEXTS + fake.export() * 1000,
}


@pytest.mark.parametrize("said", GARBAGE_IN_HANDSHAKE.values(), ids=GARBAGE_IN_HANDSHAKE.keys())
async def test_garbage_in_the_handshake(said: bytes) -> None:
    with pytest.raises(NbdProtocolError):
        async with connected(said + GO_ACK):
            pass


REFUSALS = {
    "no structured replies": fake.greeting() + fake.option_reply(fake.STRUCTURED_REPLY, 1 | 1 << 31),
    "context missing": STRUCTURED + fake.option_reply(fake.SET_META_CONTEXT, fake.ACK),
    "no such export": CONTEXTS + fake.option_reply(fake.GO, UNKNOWN_EXPORT, b"\x1b[2Jnot\xff here"),
    "a reason of its own": CONTEXTS + fake.option_reply(fake.GO, 0xFFFFFFFF),
}


@pytest.mark.parametrize("said", REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_refusal_is_not_a_broken_protocol(said: bytes) -> None:
    with pytest.raises(NbdRefusedError) as caught:
        async with connected(said):
            pass
    assert str(caught.value).isprintable()


async def test_what_the_server_says_of_the_export() -> None:
    async with connected(CONTEXTS + fake.export(flags=1 | 2) + fake.option_reply(fake.GO, fake.ACK)) as client:
        assert (client.size, client.flags, client.min_block, client.max_block) == (fake.SIZE, 3, 1, 1 << 25)
    async with connected(fake.HANDSHAKE) as client:
        assert (client.min_block, client.max_block) == (512, 1 << 25)


@pytest.mark.parametrize("length", [0, 17, len(STRUCTURED) + 3, len(fake.HANDSHAKE) - 1])
async def test_a_server_that_hangs_up_in_the_handshake(length: int) -> None:
    async with peer(fake.HANDSHAKE[:length]) as streams:
        with pytest.raises(NbdDisconnected, match="closed by the peer"):
            async with nbd.open(*streams, "disk", [ALLOCATION_DEPTH]):
                pass


async def test_a_silent_handshake_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "HANDSHAKE_SECONDS", 0.05)
    with pytest.raises(NbdDisconnected, match="no end of it"):
        async with connected(fake.greeting()):
            pass


async def test_a_name_longer_than_the_protocol_allows_is_not_sent() -> None:
    async with peer(STRUCTURED) as streams:
        with pytest.raises(ValueError, match="NBD string"):
            async with nbd.open(*streams, "x" * 5000):
                pass
