"""Manual pages, made of what `--help` is made of: one per command, and one of all of them.

python -m qemu_esd.cli.man FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from qemu_esd import __version__
from qemu_esd.cli.manual import Chapter, Entry, chapters
from qemu_esd.errors import ENDINGS


def pages() -> Iterator[tuple[str, str]]:
    """File names, and what is in them."""
    for chapter in chapters():
        yield f"{'-'.join(chapter.path)}.1", page(chapter)


def page(chapter: Chapter) -> str:
    """One page in the macros of man(7)."""
    title, (first, *more) = "-".join(chapter.path), chapter.about
    lines = [f'.TH "{title.upper()}" 1 "" "qemu-esd {__version__}"', ".SH NAME"]
    lines += [f"{_roff(title)} \\- {_roff(first.partition('. ')[0].rstrip('.'))}"]
    lines += [".SH SYNOPSIS", f".B {_roff(chapter.name)}", _roff(chapter.usage)]
    lines += [".SH DESCRIPTION", _roff(first), *(line for rest in more for line in (".PP", _roff(rest)))]
    lines += [*_entries("ARGUMENTS", chapter.arguments), *_entries("OPTIONS", chapter.options)]
    lines += _commands(title, chapter.commands)
    lines += [".SH EXIT STATUS"]
    lines += [line for end in ENDINGS for line in (".TP", str(end.status), _roff(end.meaning))]
    return "\n".join([*lines, ""])


def _entries(heading: str, entries: Sequence[Entry]) -> Iterator[str]:
    if entries:
        yield f".SH {heading}"
    for entry in entries:
        yield from (".TP", f".B {_roff(entry.name)}", _roff(entry.about) or "\\&")


def _commands(title: str, entries: Sequence[Entry]) -> Iterator[str]:
    if entries:
        yield ".SH COMMANDS"
    for entry in entries:
        yield from (".TP", f".BR {_roff(f'{title}-{entry.name}')} (1)", _roff(entry.about))


def _roff(text: str) -> str:
    """The text as it is, whatever troff would make of it."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    escaped = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in escaped)
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in escaped.splitlines())


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
