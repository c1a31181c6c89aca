"""The trail of a migration, beside its journal: JSON lines, none of which anything is undone or recovered by.

So it is neither forced to the disk nor locked, what cannot be written is lost, and what cannot be read is left out.
Several processes may write to it, one after the other. It is bounded: samples become rarer, and there is an end.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path

from qemu_esd.journal import codec, store
from qemu_esd.log import logger
from qemu_esd.model.trail import Mark, Marked

# The first so many samples of a thing are this far apart, the next so many twice as far, and so on.
FIRST_SECONDS, DOUBLED_AFTER = 0.5, 240
MOST_BYTES = 4 << 20


def path_of(id: str) -> Path:
    return store.path_of(id).with_suffix(".trail")


def append(id: str, mark: Mark) -> None:
    """Remember something now. What cannot be written is lost."""
    path = path_of(id)
    line = json.dumps({"time": time.time(), "mark": json.loads(codec.dump(mark, Mark))})
    try:
        if not path.exists() or path.stat().st_size < MOST_BYTES:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
                stream.write(f"{line}\n")
    except OSError as error:
        logger.info("the trail cannot be written", file=str(path), why=str(error))


def read(id: str) -> tuple[Marked, ...]:
    """All that is remembered, oldest first; nothing of a migration that has no trail."""
    try:
        lines = path_of(id).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(marked for line in lines if (marked := _marked(line)) is not None)


def _marked(line: str) -> Marked | None:
    """None for a line that is torn, or of another version."""
    try:
        document = json.loads(line)
        return Marked(float(document["time"]), codec.load(json.dumps(document["mark"]), Mark))  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError, RecursionError, codec.RecordError):
        return None


class Pace:
    """Which samples are kept: a day of them is hardly more than an hour."""

    def __init__(self) -> None:
        self._kept: Counter[str] = Counter()
        self._due: dict[str, float] = {}

    def wants(self, what: str, seconds: float) -> bool:
        """Whether a sample of this thing is due; `seconds` by any steady clock."""
        if seconds < self._due.get(what, seconds):
            return False
        self._due[what] = seconds + FIRST_SECONDS * 2 ** (self._kept[what] // DOUBLED_AFTER)
        self._kept[what] += 1
        return True
