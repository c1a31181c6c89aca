"""What two shells need besides what typer does for them.

Bash takes `=`, `:` and `@` for words of their own when it completes, and keeps what is before them as it is. So
`--disk-policy vda=ba` comes as four words, and `background` is the answer, not `vda=background`. Here the words are
made whole again, and what bash keeps is noted for those who offer words.

zsh loads the file that typer installs at the first Tab, and that file only defines what the next one calls.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# What typer's script for bash sets, as pinned in pyproject.toml; and what we add to it.
_SHELL, _WORDS, _INDEX = "_QEMU_ESD_COMPLETE", "COMP_WORDS", "COMP_CWORD"
_KEPT = "_QEMU_ESD_KEPT"
_BREAKS = "=:@"


@dataclass(frozen=True)
class Typed:
    """The words before that to be completed; of that one what bash keeps, and the rest, which it replaces."""

    before: tuple[str, ...]
    kept: str
    rest: str


def whole(words: Sequence[str]) -> Typed:
    """What bash has taken apart, whole again; the last of `words` is to be completed."""
    *before, typed = _glued(words)
    rest = "" if _is_break(words[-1]) else words[-1]
    kept = typed[: len(typed) - len(rest)]
    if kept.startswith("--"):
        option, _, kept = kept.partition("=")
        before.append(option)
    # It completes names of hosts by itself, and takes the sign with the name.
    return Typed((*before,), kept[:-1], "@" + rest) if kept.endswith("@") else Typed((*before,), kept, rest)


def _glued(words: Sequence[str]) -> list[str]:
    glued = [words[0]]
    for former, word in pairwise(words):
        if _is_break(former) or _is_break(word):
            glued[-1] += word
        else:
            glued.append(word)
    return glued


def _is_break(word: str) -> bool:
    return word != "" and not word.strip(_BREAKS)


# zsh calls the file as a function of its name; when it is read in otherwise, there is nothing to be completed.
_CALL = '\n[ "$funcstack[1]" != "_%(prog_name)s" ] || %(complete_func)s "$@"\n'


def prepare() -> None:
    """Before typer looks at how it was called."""
    if {"--install-completion", "--show-completion"} & set(sys.argv):
        _mend_zsh()
    _make_whole()


def _mend_zsh() -> None:
    # No part of typer's interface: pyproject.toml has its version, and a test asks a real zsh.
    from typer import _completion_shared

    _completion_shared._completion_scripts["zsh"] += _CALL


def _make_whole() -> None:
    """Let typer see whole words, if it is bash that asks."""
    index = os.environ.get(_INDEX, "")
    if os.environ.get(_SHELL) != "complete_bash" or not index.isdecimal():
        return
    words = os.environ.get(_WORDS, "").split("\n")[: int(index) + 1]
    typed = whole(words)
    os.environ[_WORDS] = "\n".join((*typed.before, typed.rest))
    os.environ[_INDEX], os.environ[_KEPT] = str(len(typed.before)), typed.kept


def kept() -> str:
    """What the shell keeps of the word that is to be completed: what is offered goes on from there."""
    return os.environ.get(_KEPT, "")
