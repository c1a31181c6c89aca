"""Manual pages, made of what `--help` is made of: one per command, and one of all of them.

python -m qemu_esd.cli.man FOLDER
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from qemu_esd import __version__
from qemu_esd.cli.app import app

_ENDS = (
    ("0", "done"),
    ("1", "failed; a migration was rolled back, and the guest runs where it ran"),
    ("2", "wrong usage"),
    ("3", "refused before anything was touched"),
    ("4", "committed but not finished: the guest runs on the target, and the message names the command to go on with"),
)

Command = TyperCommand | TyperGroup


def pages() -> Iterator[tuple[str, str]]:
    """File names, and what is in them."""
    for path, command in _commands(("qemu-esd",), cast("Command", typer.main.get_command(app))):
        yield f"{'-'.join(path)}.1", page(path, command)


def _commands(path: tuple[str, ...], command: Command) -> Iterator[tuple[tuple[str, ...], Command]]:
    yield path, command
    if isinstance(command, TyperGroup):
        for name, below in command.commands.items():
            yield from _commands((*path, name), cast("Command", below))


def page(path: tuple[str, ...], command: Command) -> str:
    """One page in the macros of man(7)."""
    context = typer.Context(command, info_name=" ".join(path))
    title, about = "-".join(path), _text(command.help)
    first, _, rest = about.partition("\n\n")
    lines = [f'.TH "{title.upper()}" 1 "" "qemu-esd {__version__}"', ".SH NAME"]
    lines += [
        f"{_roff(title)} \\- {_roff(first.partition('. ')[0].rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_roff(' '.join(path))}",
    ]
    lines += [_roff(" ".join(command.collect_usage_pieces(context)))]
    lines += [".SH DESCRIPTION", _roff(first), *((".PP", _roff(rest)) if rest else ())]
    lines += list(_parameters(command, context))
    if isinstance(command, TyperGroup):
        lines += list(_below(path, command))
    lines += [".SH EXIT STATUS", *(line for status, what in _ENDS for line in (".TP", status, _roff(what)))]
    return "\n".join([*lines, ""])


def _parameters(command: Command, context: typer.Context) -> Iterator[str]:
    for kind, heading in ((TyperArgument, "ARGUMENTS"), (TyperOption, "OPTIONS")):
        those = [one for one in command.get_params(context) if isinstance(one, kind)]
        if those:
            yield f".SH {heading}"
        for one in those:
            yield from (".TP", f".B {_roff(_named(one, context))}", _roff(_text(getattr(one, "help", None))) or "\\&")


def _named(parameter: TyperArgument | TyperOption, context: typer.Context) -> str:
    if isinstance(parameter, TyperArgument):
        return parameter.make_metavar(context)
    names = ", ".join((*parameter.opts, *parameter.secondary_opts))
    takes_none = isinstance(parameter, TyperOption) and (parameter.is_flag or parameter.count)
    return names if takes_none else f"{names} {parameter.make_metavar(context)}"


def _below(path: tuple[str, ...], group: TyperGroup) -> Iterator[str]:
    yield ".SH COMMANDS"
    for name, command in group.commands.items():
        title = "-".join((*path, name))
        yield from (".TP", f".BR {_roff(title)} (1)", _roff(_text(command.help).partition("\n\n")[0]))


def _text(help: str | None) -> str:
    """Paragraphs, each in one line."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", (help or "").strip()))


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
