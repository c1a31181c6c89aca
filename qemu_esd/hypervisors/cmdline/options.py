"""A command line as options, and options as a command line."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qemu_esd.errors import RefusedError
from qemu_esd.hypervisors.cmdline import keyval
from qemu_esd.hypervisors.cmdline.flags import ALONE, IMPLIED, WITH_VALUE
from qemu_esd.hypervisors.cmdline.keyval import Arguments

_SHOWN = 100  # characters of an option in a message


@dataclass(frozen=True)
class Option:
    """`-flag value`. A disk image given without a flag is the option `hda`, as in QEMU."""

    flag: str
    value: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        return (f"-{self.flag}",) if self.value is None else (f"-{self.flag}", self.value)

    @property
    def arguments(self) -> Arguments:
        """The value taken apart. Raises RefusedError if QEMU could not have read it either."""
        try:
            return keyval.parse(self.value or "", IMPLIED.get(self.flag))
        except ValueError as bad:
            raise RefusedError(f"cannot read {self}: {bad}") from bad

    def __str__(self) -> str:
        text = " ".join(self.words)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def option(flag: str, arguments: Arguments) -> Option:
    return Option(flag, arguments.text())


def split(argv: Sequence[str]) -> tuple[str, tuple[Option, ...]]:
    """The binary and the options of a command line. Raises RefusedError if a value is missing."""
    if not argv:
        raise RefusedError("the command line is empty")
    return argv[0], tuple(_options(list(argv[1:])))


def join(binary: str, options: Iterable[Option]) -> tuple[str, ...]:
    return (binary, *(word for one in options for word in one.words))


def _options(words: Sequence[str]) -> Iterator[Option]:
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if not word.startswith("-"):
            yield Option("hda", word)
            continue
        flag = word.removeprefix("-").removeprefix("-")
        yield Option(flag, rest.popleft() if _takes_value(flag, rest) else None)


def _takes_value(flag: str, rest: Sequence[str]) -> bool:
    if flag in ALONE:
        return False
    if flag not in WITH_VALUE:  # of another version: what follows is its value unless it looks like an option
        return bool(rest) and not rest[0].startswith("-")
    if not rest:
        raise RefusedError(f"the command line ends after -{flag}, which needs a value")
    return True
