"""Reading the guest's serial console: the lines of the load (their format is told in images/load/say.c).

QEMU may record a character of a serial line twice: when the socket beside the record is full, it writes the character
again later, to both. So each line carries its sum, and a line that is too long is read without what is there twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from urllib.parse import unquote
from zlib import crc32

MARK = "esd-load "
SUM = " sum="
STATUS = "status"
MOST_REPEATED = 3  # characters of one line; more has not been seen, and each one more takes ten times as long


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
    text = next(filter(None, map(_summed, _readings(line.rstrip()))), None)
    if text is None:
        return None
    words = [word for word in text.split() if "=" not in word]
    values = dict(word.split("=", 1) for word in text.split() if "=" in word)
    return LoadLine(" ".join(words) or STATUS, {key: unquote(value) for key, value in values.items()})


def _summed(line: str) -> str | None:
    """What the load said, if the sum is right. The last mark counts: a line may begin in a broken one."""
    _, mark, rest = line.rpartition(MARK)
    text, _, told = rest.rpartition(SUM)
    return text if mark and told == f"{crc32(text.encode()):08x}" else None


def _readings(line: str) -> Iterator[str]:
    """`line`, then each way to leave out up to MOST_REPEATED characters that equal the one before."""
    yield line
    if "=" not in line:
        return
    repeats = [at for at in range(1, len(line)) if line[at] == line[at - 1]]
    for count in range(1, MOST_REPEATED + 1):
        for gone in combinations(repeats, count):
            yield "".join(character for at, character in enumerate(line) if at not in gone)
