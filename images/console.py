"""Reading the guest's serial console: the lines of the load (their format is told in images/load/say.c)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

MARK = "esd-load "
STATUS = "status"


@dataclass(frozen=True)
class LoadLine:
    """One line. `word` is what stands before the values ("ready", "SCAN DONE"), STATUS where nothing does."""

    word: str
    values: Mapping[str, str]

    def number(self, key: str) -> int:
        """The value of `key`. Raises KeyError, and ValueError where it is not a number."""
        return int(self.values[key])


def parse(line: str) -> LoadLine | None:
    """The load's line in `line`; None for anything else on the console, such as the kernel's messages."""
    _, mark, text = line.rstrip().partition(MARK)
    if not mark:
        return None
    words = [word for word in text.split() if "=" not in word]
    values = dict(word.split("=", 1) for word in text.split() if "=" in word)
    return LoadLine(" ".join(words) or STATUS, {key: unquote(value) for key, value in values.items()})
