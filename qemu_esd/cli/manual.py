"""What `--help` says of each command, as plain text: manual pages and the reference are made of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from qemu_esd.cli.app import app

Command = TyperCommand | TyperGroup


@dataclass(frozen=True)
class Entry:
    """An argument, an option, or a command of a group; `about` is "" where nothing is said of it."""

    name: str
    about: str


@dataclass(frozen=True)
class Chapter:
    """One command. `about`: paragraphs, each in one line; `usage`: what follows its name."""

    path: tuple[str, ...]
    about: tuple[str, ...]
    usage: str
    arguments: tuple[Entry, ...]
    options: tuple[Entry, ...]
    commands: tuple[Entry, ...]

    @property
    def name(self) -> str:
        return " ".join(self.path)


def chapters() -> Iterator[Chapter]:
    """All commands, `qemu-esd` itself first, each group before what is in it."""
    for path, command in _commands(("qemu-esd",), root()):
        yield _chapter(path, command)


def root() -> Command:
    return cast("Command", typer.main.get_command(app))


def _commands(path: tuple[str, ...], command: Command) -> Iterator[tuple[tuple[str, ...], Command]]:
    yield path, command
    for name, below in _below(command).items():
        yield from _commands((*path, name), below)


def _below(command: Command) -> dict[str, Command]:
    return cast("dict[str, Command]", command.commands) if isinstance(command, TyperGroup) else {}


def _chapter(path: tuple[str, ...], command: Command) -> Chapter:
    context = typer.Context(command, info_name=" ".join(path))
    arguments = tuple(_parameters(command, context, TyperArgument))
    words = ["COMMAND", "[ARGS]..."] if _below(command) else [entry.name for entry in arguments]
    return Chapter(
        path,
        tuple(_paragraphs(command.help)),
        " ".join(["[OPTIONS]", *words]),
        arguments,
        tuple(_parameters(command, context, TyperOption)),
        tuple(Entry(name, next(iter(_paragraphs(below.help)), "")) for name, below in _below(command).items()),
    )


def _parameters(
    command: Command, context: typer.Context, kind: type[TyperArgument] | type[TyperOption]
) -> Iterator[Entry]:
    for one in command.get_params(context):
        if isinstance(one, kind):
            name = _argument(one) if isinstance(one, TyperArgument) else _option(one)
            yield Entry(name, " ".join(_paragraphs(getattr(one, "help", None))))


# Named by ourselves: each version of Typer has other words for the same.


def _argument(argument: TyperArgument) -> str:
    word = argument.metavar or str(argument.name).upper()
    word = word if argument.required or word.startswith("[") else f"[{word}]"
    return f"{word}..." if argument.nargs == -1 and "..." not in word else word


def _option(option: TyperOption) -> str:
    names = ", ".join((*option.opts, *option.secondary_opts))
    return names if option.is_flag or option.count else f"{names} {option.metavar or 'VALUE'}"


def _paragraphs(help: str | None) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", (help or "").strip()) if part.strip()]
