"""docs/reference.md, made of what `--help` is made of: every command, argument, option and exit status.

python -m qemu_esd.cli.reference FILE
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from qemu_esd.cli.manual import Chapter, Entry, chapters
from qemu_esd.errors import ENDINGS

_TOP = """# Reference of the commands

Made from the program itself by `python3 tasks.py docs`: it is what `--help` and the manual pages say, and a test holds
it to that. What the commands print with `--json`: [json.md](json.md). What the words mean: [concepts.md](concepts.md).
"""


def document() -> str:
    """The page, in Markdown as GitHub and MkDocs read it."""
    parts = [_TOP, *_endings(), *(line for chapter in chapters() for line in _section(chapter))]
    return "\n".join([*parts, ""])


def _endings() -> Iterator[str]:
    yield "## Exit status\n\n| status | what it says | what to do |\n|---|---|---|"
    yield from (f"| {end.status} | {_plain(end.meaning)} | {_plain(end.next_step)} |" for end in ENDINGS)
    yield "\nExcept for `lab exec`, which ends as the program that it has run. An error is one clear message on stderr:"
    yield "what failed, on which host, and with `try:` the next command."


def _section(chapter: Chapter) -> Iterator[str]:
    yield f"\n{'#' * min(len(chapter.path) + 1, 3)} {chapter.name}\n"
    yield f"```\n{chapter.name} {chapter.usage}\n```"
    yield from (f"\n{_plain(paragraph)}" for paragraph in chapter.about)
    yield from _entries("Commands", [_linked(chapter, entry) for entry in chapter.commands])
    yield from _entries("Arguments", [(f"`{entry.name}`", entry.about) for entry in chapter.arguments])
    yield from _entries("Options", [(f"`{entry.name}`", entry.about) for entry in chapter.options])


def _linked(chapter: Chapter, entry: Entry) -> tuple[str, str]:
    anchor = "-".join((*chapter.path, entry.name))
    return f"[{entry.name}](#{anchor})", entry.about


def _entries(heading: str, entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    if entries:
        yield f"\n{heading}:\n"
    for name, about in entries:
        yield f"- {name}: {_plain(about)}" if about else f"- {name}"


def _plain(text: str) -> str:
    """The text as it is, whatever Markdown would make of it."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
