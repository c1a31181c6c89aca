"""The pages as a reader finds them: their blocks of shell commands, and the commands in those."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
# Before a block of a story that cannot be run here, for this reason.
_BLOCK = re.compile(r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```sh\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_KEYWORDS = {"do", "then", "else"}


@dataclass(frozen=True)
class Block:
    """`place`: page and line. `not_run`: why a story leaves it out, or None."""

    place: str
    text: str
    not_run: str | None

    def commands(self) -> Iterator[tuple[str, ...]]:
        """Each command with its words, as a shell splits them; nothing is put in for variables."""
        for line in self.text.replace("\\\n", " ").splitlines():
            yield from filter(None, map(_without_frills, _split(line)))


def blocks(page: Path) -> tuple[Block, ...]:
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    return tuple(
        Block(f"{name}:{text.count(chr(10), 0, match.start('text'))}", match["text"], match["reason"])
        for match in _BLOCK.finditer(text)
    )


def inline(page: Path) -> tuple[str, ...]:
    """The commands of ours in its sentences."""
    found = re.findall(r"(?<!`)`(qemu-esd [^`]+)`(?!`)", page.read_text(encoding="utf-8"))
    return tuple(" ".join(words.split()) for words in found)


def _split(line: str) -> Iterator[tuple[str, ...]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>()")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set(";&|<>()"):
            yield tuple(words)
            words = []
        else:
            words.append(word)
    yield tuple(words)


def _without_frills(words: tuple[str, ...]) -> tuple[str, ...]:
    """Without `do`, and without variables that are set for the command."""
    while words and (words[0] in _KEYWORDS or re.match(r"\w+=", words[0])):
        words = words[1:]
    return words
