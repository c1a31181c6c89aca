"""A recorded session (`qemu-esd qmp --trace FILE`) as a QEMU that says again what it said then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any


@asynccontextmanager
async def replayed(record: Path, socket: Path) -> AsyncIterator[None]:
    """Listens on `socket`, and answers each command that is said as in the record; ends at the first that is not."""
    lines = [json.loads(line) for line in record.read_text().splitlines()]

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ids: dict[str, Any] = {}
        for line in lines:
            message = line["message"]
            if line["from"] == "us":
                said = await _command(reader)
                if said is None or said["execute"] != message["execute"]:
                    break
                ids[str(message.get("id"))] = said.get("id")
                continue
            if "id" in message:
                message |= {"id": ids[message["id"]]}
            writer.write(json.dumps(message).encode() + b"\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(speak, str(socket)):
        yield


async def _command(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next one; they are not ended by anything but their own last bracket."""
    text = b""
    while data := await reader.read(1):
        text += data
        with suppress(ValueError):
            return dict(json.loads(text))
    return None
