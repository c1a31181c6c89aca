"""The `key=value,...` strings and JSON objects that QEMU's options take.

Source: QEMU's util/keyval.c (-blockdev, -object, -machine) and util/qemu-option.c (all others). A comma
inside a value is doubled. The first value may stand without its key. A key alone is on, or off if it starts
with "no".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Pair = tuple[str, Json]

_TRUE = {"on", "yes", "true", "y"}
_BARE = re.compile(r"(?!help$)[A-Za-z0-9_.:/+-]+")


@dataclass(frozen=True)
class Arguments:
    """What stands behind one option. `pairs` is in the order written; keys of the flat form may be dotted.

    `implied` is the key that the first value may leave out. `is_json` says which of the forms was written.
    """

    pairs: tuple[Pair, ...]
    implied: str | None = None
    is_json: bool = False

    def get(self, key: str) -> str | None:
        """The scalar with this (dotted) key as text, booleans as "on" and "off"; None if there is none."""
        return next((text for dotted, text in reversed(list(_leaves(self.pairs))) if dotted == key), None)

    def is_on(self, key: str, default: bool = False) -> bool:
        value = self.get(key)
        return default if value is None else value in _TRUE

    def has(self, *keys: str) -> bool:
        return any(self.get(key) is not None for key in keys)

    def with_value(self, key: str, value: str) -> Arguments:
        """The same with a top-level key set: in its place if it is there, else at the end."""
        if not self.has(key):
            return replace(self, pairs=(*self.pairs, (key, value)))
        return replace(self, pairs=tuple((k, value if k == key else v) for k, v in self.pairs))

    def without(self, *keys: str) -> Arguments:
        return replace(self, pairs=tuple(pair for pair in self.pairs if pair[0] not in keys))

    def leaves(self) -> tuple[tuple[str, str], ...]:
        """Every scalar with its dotted key."""
        return tuple(_leaves(self.pairs))

    def map_text(self, change: Callable[[str, str], str]) -> Arguments:
        """The same with every text value replaced by `change(dotted key, value)`."""
        return replace(self, pairs=tuple((key, _mapped(key, value, change)) for key, value in self.pairs))

    def tree(self) -> dict[str, Json]:
        """As nested dictionaries and lists, the way QAPI sees it."""
        return dict(self.pairs) if self.is_json else nested(self.leaves())

    def text(self) -> str:
        """As one word of a command line. `parse(text(), implied)` gives the same pairs."""
        return json.dumps(dict(self.pairs), ensure_ascii=False) if self.is_json else join(self.pairs, self.implied)


def parse(text: str, implied: str | None = None) -> Arguments:
    """Arguments from one word of a command line. A word that starts with `{` is JSON. Raises ValueError."""
    if text.startswith("{"):
        return Arguments(tuple(json.loads(text).items()), implied, is_json=True)
    return Arguments(tuple(_flat(text, implied)), implied)


def join(pairs: Iterable[Pair], implied: str | None = None) -> str:
    """`key=value,...` with commas doubled; the first value without its key where that is unambiguous."""
    words = [f"{key}={_plain(value).replace(',', ',,')}" for key, value in pairs]
    first = next(iter(pairs), None)
    if first and first[0] == implied and _BARE.fullmatch(_plain(first[1])):
        words[0] = _plain(first[1])
    return ",".join(words)


def keyval(pairs: Mapping[str, str | None], implied: str | None = None) -> str:
    """`key=value,...` of the entries that are not None."""
    return join(tuple((key, value) for key, value in pairs.items() if value is not None), implied)


def nested(leaves: Iterable[tuple[str, str]]) -> dict[str, Json]:
    """`(("file.driver", "nbd"),)` as `{"file": {"driver": "nbd"}}`; of two equal keys the last one wins."""
    root: dict[str, Json] = {}
    for key, value in leaves:
        *parents, last = key.split(".")
        branch = root
        for parent in parents:
            below = branch.get(parent)
            if not isinstance(below, dict):
                below = branch[parent] = {}
            branch = below
        branch[last] = value
    return root


def _flat(text: str, implied: str | None) -> Iterable[Pair]:
    at = 0
    while at < len(text):
        end = next((i for i in range(at, len(text)) if text[i] in "=,"), len(text))
        if text[end : end + 1] == "=":
            value, after = take_value(text, end + 1)
            yield text[at:end], value
        elif at == 0 and implied:
            value, after = take_value(text, at)
            yield implied, value
        else:
            yield _flag(text[at:end])
            after = end + 1
        at = after


def take_value(text: str, start: int) -> tuple[str, int]:
    """The value that starts here, and where the next key starts."""
    at = start
    while (comma := text.find(",", at)) >= 0 and text[comma + 1 : comma + 2] == ",":
        at = comma + 2
    end = len(text) if comma < 0 else comma
    return text[start:end].replace(",,", ","), end + 1


def _flag(word: str) -> tuple[str, str]:
    return (word[2:], "off") if word.startswith("no") else (word, "on")


def _plain(value: Json) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _leaves(pairs: Iterable[Pair], above: str = "") -> Iterable[tuple[str, str]]:
    for key, value in pairs:
        if isinstance(value, dict):
            yield from _leaves(value.items(), f"{above}{key}.")
        elif isinstance(value, list):
            yield from _leaves([(str(i), item) for i, item in enumerate(value)], f"{above}{key}.")
        elif value is not None:
            yield f"{above}{key}", _plain(value)


def _mapped(key: str, value: Json, change: Callable[[str, str], str]) -> Json:
    if isinstance(value, dict):
        return {name: _mapped(f"{key}.{name}", item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [_mapped(f"{key}.{i}", item, change) for i, item in enumerate(value)]
    return change(key, value) if isinstance(value, str) else value
