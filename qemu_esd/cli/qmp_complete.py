"""What could come next in a line of QMP words, by the schema. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from qemu_esd.errors import UsageError
from qemu_esd.qmp.schema import Schema
from qemu_esd.qmp.signature import of_type

# What the shell itself understands.
OWN_WORDS = ("help", "exit")


def completions(schema: Schema, line: str) -> Iterator[tuple[str, str]]:
    """Whole words that the last one of `line` can become, each with what it means.

    `block-job-set-speed dev` gives ("device=", "TEXT"); a value that can be listed is given after its `=`.
    """
    words = _words(line)
    command, last = words[0], words[-1]
    if len(words) == 1:
        known = [*OWN_WORDS, *schema.commands()]
        yield from ((name, "") for name in known if name.startswith(last))
    elif command == "help":
        yield from ((name, "") for name in schema.commands() if name.startswith(last))
    else:
        yield from _arguments(schema, command, words[1:-1], last)


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    return words if words and not line[-1].isspace() else [*words, ""]


def _arguments(schema: Schema, command: str, given: list[str], last: str) -> Iterator[tuple[str, str]]:
    try:
        type = schema.arguments(command)
    except UsageError:
        return
    values = dict(word.partition("=")[::2] for word in given)
    path, equals, value = last.partition("=")
    *above, key = path.split(".")
    place = "".join(f"{name}." for name in above)
    inner = _below(schema, type, above, "", values)
    if inner is None:
        return
    members = {member.name: member for member in schema.members(inner, _siblings(values, place))}
    if equals:
        if key in members:
            yield from ((f"{path}={one}", "") for one in _values(schema, members[key].type) if one.startswith(value))
        return
    for name, member in members.items():
        if name.startswith(key) and place + name not in values:
            mark = "" if member.required else "[]"
            yield place + name + _end(schema, member.type), f"{of_type(schema, member.type)} {mark}".strip()


def _siblings(values: dict[str, str], place: str) -> dict[str, Any]:
    """What is given beside a key already: its object's other keys."""
    return {key[len(place) :]: value for key, value in values.items() if key.startswith(place)}


def _below(schema: Schema, type: str, path: list[str], place: str, values: dict[str, str]) -> str | None:
    """The object type at the end of a path of keys, or None where there is none."""
    for key in path:
        if key.isdecimal() and schema.kind(type) == "array":
            type = schema.element(type)
        else:
            found = [one for one in schema.members(type, _siblings(values, place)) if one.name == key]
            if not found:
                return None
            type = found[0].type
        place += f"{key}."
        type = _as_object(schema, type)
    return type if schema.kind(type) == "object" else None


def _as_object(schema: Schema, type: str) -> str:
    """Of a type that may be several the object, which alone has something below it."""
    if schema.kind(type) != "alternate":
        return type
    return next((one for one in schema.choices(type) if schema.kind(one) == "object"), type)


def _end(schema: Schema, type: str) -> str:
    return "." if schema.kind(type) == "object" else "="


def _values(schema: Schema, type: str) -> tuple[str, ...]:
    match schema.kind(type):
        case "enum":
            return schema.values(type)
        case "boolean":
            return ("on", "off")
        case "alternate":
            return tuple(value for choice in schema.choices(type) for value in _values(schema, choice))
    return ()
