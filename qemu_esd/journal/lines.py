"""The lines of a journal: an entry each, with the time and a check sum. What cannot be read is said with its file."""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path
from typing import Any

from qemu_esd.errors import EsdError, RefusedError
from qemu_esd.journal import codec
from qemu_esd.model.record import Entry


class JournalError(EsdError):
    """The controller's disk does not take what must be written down before it is done."""


class HomeError(JournalError, RefusedError):
    """The controller has no folder of its own: nothing can be written down, so nothing is begun."""


class DamagedJournalError(JournalError, RefusedError):
    """A journal that cannot be read, or not to its end: what it held is unknown, so nobody goes on with it."""


class NotBegunError(DamagedJournalError):
    """A journal without a whole line: a crash came before the first one, and before any act."""


def write(entry: Entry) -> bytes:
    """One whole line."""
    body = json.loads(codec.dump(entry, Entry))
    return f"{json.dumps({'time': time.time(), 'entry': body, 'crc': _checksum(json.dumps(body))})}\n".encode()


def read(path: Path) -> tuple[tuple[Entry, ...], int]:
    """The whole lines of a journal, and how many bytes they take. Raises DamagedJournalError, FileNotFoundError.

    What follows the last whole line was torn by a crash, and never acted upon.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise damage(path, str(error.strerror)) from error
    whole = data.rfind(b"\n") + 1
    return tuple(_numbered(path, *row) for row in enumerate(data[:whole].splitlines(), 1)), whole


def times(path: Path) -> tuple[float, ...]:
    """When each of the whole lines of a journal that can be read was written (s since 1970). Raises as `read` does."""
    entries, whole = read(path)
    rows = path.read_bytes()[:whole].splitlines()[: len(entries)]
    return tuple(float(json.loads(row)["time"]) for row in rows)


def read_first(path: Path) -> Entry | None:
    """What the first line says, if that much of a damaged journal can be read."""
    try:
        return _entry(path.read_bytes().partition(b"\n")[0])
    except (OSError, codec.RecordError):
        return None


def _numbered(path: Path, number: int, line: bytes) -> Entry:
    try:
        return _entry(line)
    except codec.RecordError as error:
        raise damage(path, f"line {number}: {error.what}") from error


def damage(path: Path, reason: str) -> DamagedJournalError:
    """Of a journal that is there and cannot be relied on."""
    hint = f"see 'A damaged journal' in docs/recovery.md for what may be left, then: mv {path} {path}.damaged"
    return DamagedJournalError(f"the journal {path} cannot be read: {reason}", hint=hint)


def _entry(line: bytes) -> Entry:
    try:
        document: dict[str, Any] = json.loads(line)
        body = json.dumps(document["entry"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise codec.RecordError(f"it is no record ({error})") from error
    # A line of a former version has none.
    if "crc" in document and document["crc"] != _checksum(body):
        raise codec.RecordError("its check sum is that of something else")
    return codec.load(body, Entry)  # type: ignore[arg-type]


def _checksum(body: str) -> int:
    """Of an entry as it was written: a bit that has turned over must not make another host or path of it."""
    return zlib.crc32(body.encode())
