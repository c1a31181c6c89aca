"""Every command of ours in the pages is one that the program knows: right words, known options, nothing missing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import cast

import pytest
import typer
from typer.core import TyperGroup

import tasks
from qemu_esd.cli.manual import Command, root
from tests.docs.pages import PAGES, blocks, inline

COMMANDS = [
    pytest.param(words, id=f"{block.place} {' '.join(words)}")
    for page in PAGES
    for block in blocks(page)
    for words in block.commands()
    if words[0] == "qemu-esd" or words[:2] == ("python3", "tasks.py")
]


@pytest.mark.parametrize("words", COMMANDS)
def test_it_is_known(words: tuple[str, ...]) -> None:
    if words[0] == "qemu-esd":
        parse(words[1:])
    else:
        tasks.chosen(words[2], list(words[3:]))


@pytest.mark.parametrize("words", sorted({words for page in PAGES for words in inline(page)}))
def test_it_is_known_where_a_sentence_names_it(words: str) -> None:
    """There without all that it needs."""
    try:
        parse(tuple(shlex.split(words)[1:]))
    except typer.TyperException as error:
        assert error.format_message().startswith("Missing"), error


@pytest.mark.parametrize("wrong", ["mgirate vm1 hostB", "migrate vm1", "policy", "vm run v --dsk a", "lab"])
def test_wrong_words_are_found(wrong: str) -> None:
    with pytest.raises((typer.TyperException, SystemExit)):
        parse(tuple(wrong.split()))


def parse(words: tuple[str, ...]) -> None:
    """By the program's own parser, and nothing is done."""
    command = root()
    for one in everything(command):
        one.callback = None
        for parameter in one.params:
            # --version ends the program, --install-completion writes into the home.
            parameter.callback = None
    command.main(list(words), "qemu-esd", standalone_mode=False)


def everything(command: Command) -> Iterator[Command]:
    yield command
    if isinstance(command, TyperGroup):
        for below in command.commands.values():
            yield from everything(cast("Command", below))
