"""What a command wants, in words: for whoever got it wrong, and for completion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qemu_esd.qmp.schema import Member, Schema

_SHORT = {"string": "TEXT", "int": "INT", "number": "NUMBER", "boolean": "on|off", "null": "null", "value": "ANY"}
# More words of an enum than that say nothing to a reader.
MANY = 8


def of(schema: Schema, command: str, given: Mapping[str, Any] | None = None) -> str:
    """One line: `block-job-set-speed device=TEXT speed=INT`; what may be left out is in brackets."""
    words = [_argument(schema, member) for member in schema.members(schema.arguments(command), given or {})]
    return " ".join([command, *words])


def _argument(schema: Schema, member: Member) -> str:
    text = f"{member.name}={of_type(schema, member.type)}"
    return text if member.required else f"[{text}]"


def of_type(schema: Schema, type: str) -> str:
    """A type as one would write its value: `INT`, `a|b|c`, `{...}`, `[INT ...]`."""
    match kind := schema.kind(type):
        case "enum":
            words = schema.values(type)
            return "|".join(words[:MANY]) + ("|..." if len(words) > MANY else "")
        case "array":
            return f"[{of_type(schema, schema.element(type))} ...]"
        case "object":
            return "{...}"
        case "alternate":
            return "|".join(of_type(schema, choice) for choice in schema.choices(type))
        case _:
            return _SHORT[kind]
