"""From the words key=value to what a command takes: each value gets the type that the schema wants for it. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from qemu_esd.errors import UsageError
from qemu_esd.qmp import signature
from qemu_esd.qmp.schema import OPEN_COMMANDS, Member, Schema

_YES, _NO = ("on", "true", "yes"), ("off", "false", "no")

# A word that was split at its dots: text, or the words below it.
Tree = dict[str, Any]


def parse(schema: Schema, command: str, words: Sequence[str]) -> dict[str, Any]:
    """The arguments of `command`, of words key=value, where a.b=c is b in a, and a.0=c the first of a list.

    Raises UsageError that says what the command wants.
    """
    type, tree = schema.arguments(command), Tree()
    for word in words:
        _plant(tree, word)
    try:
        return _Typing(schema, command in OPEN_COMMANDS).object(type, tree, "")
    except UsageError as error:
        tag = {key: value for key, value in tree.items() if isinstance(value, str)}
        wanted = f"it takes: {signature.of(schema, command, tag)}"
        raise UsageError(error.what, hint=f"{error.hint}; {wanted}" if error.hint else wanted) from error


def is_json(words: Sequence[str]) -> bool:
    """Whether they are one JSON object, which is passed on as it is: QEMU itself checks it."""
    return len(words) == 1 and words[0].lstrip().startswith("{")


def parse_message(text: str) -> tuple[str, dict[str, Any]]:
    """Command and arguments of {"execute": ..., "arguments": {...}}. Raises UsageError."""
    message = json_object(text)
    command, arguments = message.get("execute"), message.get("arguments", {})
    if not isinstance(command, str) or not isinstance(arguments, dict) or set(message) - {"execute", "arguments", "id"}:
        raise UsageError("that is no command of QMP", hint='write {"execute": "COMMAND", "arguments": {...}}')
    return command, arguments


def json_object(text: str) -> dict[str, Any]:
    """Raises UsageError."""
    value = _json(text)
    if not isinstance(value, dict):
        raise UsageError("that is JSON, but no object", hint='write {"key": value, ...}')
    return value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"that is no JSON: {error}", hint="or write key=value ...") from error


def _plant(tree: Tree, word: str) -> None:
    path, equals, value = word.partition("=")
    if not path or not equals:
        raise UsageError(f"{word!r} does not say key=value", hint="or give all arguments as one JSON object")
    *above, last = path.split(".")
    for key in above:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise UsageError(f"{path}: {key} is a value already")
    if last in tree:
        raise UsageError(f"{path} is given twice")
    tree[last] = value


class _Typing:
    """Gives values the types of a schema. `place` is the path to a value, for errors. `open`: unknown keys pass."""

    def __init__(self, schema: Schema, open: bool) -> None:
        self._schema = schema
        self._open = open

    def object(self, type: str, tree: Mapping[str, Any], place: str) -> dict[str, Any]:
        known = {member.name: member for member in self._schema.members(type, tree)}
        for key in tree:
            if key not in known and not self._open:
                raise _no_such_key(place + key, key, known)
        missing = [member.name for member in known.values() if member.required and member.name not in tree]
        if missing:
            raise UsageError(f"{' and '.join(place + name for name in missing)} must be given")
        return {key: self._member(known.get(key), value, place + key) for key, value in tree.items()}

    def _member(self, member: Member | None, value: Any, place: str) -> Any:
        return self.value(member.type, value, place) if member else _guessed(value)

    def value(self, type: str, value: Any, place: str) -> Any:
        match kind := self._schema.kind(type):
            case "alternate":
                return self._alternate(type, value, place)
            case "object":
                return self.object(type, value, f"{place}.") if isinstance(value, dict) else json_object(value)
            case "array":
                return self._array(type, value, place)
            case "value":
                return _guessed(value)
        if isinstance(value, dict):
            raise UsageError(f"{place} is no object, it has nothing below it")
        return self._enum(type, value, place) if kind == "enum" else _scalar(kind, value, place)

    def _enum(self, type: str, value: str, place: str) -> str:
        words = self._schema.values(type)
        if value not in words:
            near = difflib.get_close_matches(value, words, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(words)}"
            raise UsageError(f"{place} cannot be {value!r}", hint=hint)
        return value

    def _array(self, type: str, value: Any, place: str) -> list[Any]:
        element = self._schema.element(type)
        if isinstance(value, dict):
            if sorted(value) != sorted(map(str, range(len(value)))):
                raise UsageError(f"{place} is a list", hint=f"write {place}.0=..., {place}.1=..., or JSON: [...]")
            return [self.value(element, value[str(at)], f"{place}.{at}") for at in range(len(value))]
        if value.lstrip().startswith("["):
            return list(_json(value))
        return [self.value(element, one, place) for one in value.split(",")] if value else []

    def _alternate(self, type: str, value: Any, place: str) -> Any:
        """The first type that takes the value; text is what everything can be, so it comes last."""
        kinds = {self._schema.kind(choice): choice for choice in self._schema.choices(type)}
        if isinstance(value, dict) or value.lstrip().startswith("{"):
            if "object" in kinds:
                return self.value(kinds["object"], value, place)
            raise UsageError(f"{place} is no object, it has nothing below it")
        for kind, choice in kinds.items():
            if kind not in ("object", "string"):
                try:
                    return self.value(choice, value, place)
                except UsageError:
                    continue
        if "string" in kinds:
            return value
        raise UsageError(f"{place} cannot be {value!r}", hint=f"write {signature.of_type(self._schema, type)}")


def _no_such_key(path: str, key: str, known: Mapping[str, Member]) -> UsageError:
    near = difflib.get_close_matches(key, known, n=1)
    return UsageError(f"it takes no {path}", hint=f"did you mean {near[0]}?" if near else None)


def _scalar(kind: str, text: str, place: str) -> Any:
    try:
        match kind:
            case "string":
                return text
            case "int":
                return int(text, 0)
            case "number":
                return float(text)
            case "boolean" if text.lower() in _YES + _NO:
                return text.lower() in _YES
            case "null" if text == "null":
                return None
    except ValueError:
        pass
    wanted = {"int": "a whole number", "number": "a number", "boolean": "on or off", "null": "null"}[kind]
    raise UsageError(f"{place} cannot be {text!r}", hint=f"it is {wanted}")


def _guessed(value: Any) -> Any:
    """Where any type goes: JSON if it is that, else text."""
    if isinstance(value, dict):
        return {key: _guessed(below) for key, below in value.items()}
    try:
        return json.loads(value)
    except ValueError:
        return value
