"""The handshake: fixed newstyle, structured replies, metadata contexts, one export."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from qemu_esd.nbd import wire
from qemu_esd.nbd.errors import NbdProtocolError, NbdRefusedError
from qemu_esd.nbd.stream import Stream
from qemu_esd.nbd.wire import ExportFlag, Option, OptionReply

MAX_REPLIES = 64  # to one option; more is a server that never comes to the end

REFUSALS = {
    1: "the server does not know this option",
    2: "forbidden by the server's policy",
    3: "the server calls the request invalid",
    4: "not supported on the server's platform",
    5: "the server wants TLS first",
    6: "no such export",
    7: "the server is shutting down",
    8: "the server wants its block sizes to be respected",
    9: "the request is too big",
}


@dataclass(frozen=True)
class Export:
    """What the server said of the export: sizes in bytes, and the id of each metadata context by name."""

    name: str
    size: int
    flags: ExportFlag
    min_block: int
    max_block: int
    contexts: dict[str, int]


async def negotiate(stream: Stream, export: str, contexts: Sequence[str]) -> Export:
    """From the server's greeting to the transmission phase.

    NbdRefusedError when the server has no such export or not every context; NbdProtocolError when it
    does not speak fixed newstyle NBD; NbdDisconnected when it hangs up.
    """
    await _greet(stream)
    await _structured_replies(stream)
    ids = await _choose_contexts(stream, export, contexts) if contexts else {}
    return await _go(stream, export, ids)


async def _greet(stream: Stream) -> None:
    greeting = await stream.read(18)
    if greeting[:16] != wire.MAGIC + wire.OPTION_MAGIC:
        raise NbdProtocolError(what="NBD handshake", detail="the peer is no newstyle NBD server")
    flags = int.from_bytes(greeting[16:], "big")
    if not flags & wire.FIXED_NEWSTYLE:
        raise NbdProtocolError(what="NBD handshake", detail="the server is too old (no fixed newstyle)")
    stream.write(struct.pack(">I", flags & (wire.FIXED_NEWSTYLE | wire.NO_ZEROES)))


async def _structured_replies(stream: Stream) -> None:
    if await _ask(stream, Option.STRUCTURED_REPLY, b"", "structured replies"):
        raise NbdProtocolError(what="structured replies", detail="more than an acknowledgement")


async def _choose_contexts(stream: Stream, export: str, contexts: Sequence[str]) -> dict[str, int]:
    what = f"metadata contexts of export {export!r}"
    ids: dict[str, int] = {}
    query = wire.meta_query(export, contexts)
    for kind, data in await _ask(stream, Option.SET_META_CONTEXT, query, what):
        if kind != OptionReply.META_CONTEXT:
            raise NbdProtocolError(what=what, detail=f"an option reply of kind {kind}")
        number, name = wire.parse_meta_context(data)
        if name not in contexts or name in ids or number in ids.values():
            raise NbdProtocolError(what=what, detail=f"context {name!r} with id {number}")
        ids[name] = number
    if missing := [name for name in contexts if name not in ids]:
        raise NbdRefusedError(what=what, detail=f"the export does not offer {', '.join(missing)}")
    return ids


async def _go(stream: Stream, name: str, ids: dict[str, int]) -> Export:
    what = f"export {name!r}"
    infos: dict[int, bytes] = {}
    for kind, data in await _ask(stream, Option.GO, wire.go(name), what):
        if kind != OptionReply.INFO or len(data) < 2:
            raise NbdProtocolError(what=what, detail=f"an option reply of kind {kind}, {len(data)} bytes")
        infos[int.from_bytes(data[:2], "big")] = data[2:]
    if wire.INFO_EXPORT not in infos:
        raise NbdProtocolError(what=what, detail="the server does not say how large it is")
    size, flags = wire.parse_info_export(infos[wire.INFO_EXPORT])
    low, high = 1, wire.DEFAULT_MAX_BLOCK
    if wire.INFO_BLOCK_SIZE in infos:
        low, high = wire.parse_info_block_size(infos[wire.INFO_BLOCK_SIZE])
    return Export(name, size, flags, low, high, ids)


async def _ask(stream: Stream, code: Option, data: bytes, what: str) -> list[tuple[int, bytes]]:
    """Send an option; the replies before the final ACK, as (kind, payload)."""
    replies: list[tuple[int, bytes]] = []
    stream.write(wire.option(code, data))
    for _ in range(MAX_REPLIES):
        kind, payload = await _option_reply(stream, code, what)
        if kind & wire.ERROR_BIT_OF_OPTION:
            raise NbdRefusedError(what=what, detail=_refusal(kind, payload))
        if kind == OptionReply.ACK:
            return replies
        replies.append((kind, payload))
    raise NbdProtocolError(what=what, detail=f"more than {MAX_REPLIES} replies to one option")


async def _option_reply(stream: Stream, code: Option, what: str) -> tuple[int, bytes]:
    magic, answered, kind, size = struct.unpack(">QIII", await stream.read(20))
    if magic != wire.OPTION_REPLY_MAGIC or answered != code or size > wire.MAX_OPTION_REPLY:
        raise NbdProtocolError(what=what, detail=f"magic {magic:#x}, option {answered}, {size} bytes")
    return kind, await stream.read(size)


def _refusal(kind: int, payload: bytes) -> str:
    number = kind ^ wire.ERROR_BIT_OF_OPTION
    reason = REFUSALS.get(number, f"error {number}")
    said = wire.text(payload)
    return f"{reason} ({said})" if said else reason
