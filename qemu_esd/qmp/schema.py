"""What commands, arguments and events a QEMU knows, as it says itself (`query-qmp-schema`). Only the asking is I/O."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qemu_esd.errors import UsageError
from qemu_esd.qmp.session import Session

# They take more than their schema says: whatever the driver that is named has.
OPEN_COMMANDS = frozenset({"device_add", "object-add", "netdev_add"})


@dataclass(frozen=True)
class Member:
    """One key of an object, the name of its type, and whether it must be there."""

    name: str
    type: str
    required: bool


@dataclass(frozen=True)
class Schema:
    """The types by name, as `SchemaInfo` dictionaries (QEMU's docs/devel/qapi-code-gen)."""

    types: Mapping[str, Mapping[str, Any]]

    def commands(self) -> tuple[str, ...]:
        return self._of("command")

    def events(self) -> tuple[str, ...]:
        return self._of("event")

    def _of(self, kind: str) -> tuple[str, ...]:
        return tuple(sorted(name for name, row in self.types.items() if row["meta-type"] == kind))

    def arguments(self, command: str) -> str:
        """The object type that `command` takes. Raises UsageError for an unknown one, with the nearest."""
        if command not in self.commands():
            raise unknown("command", command, self.commands(), "query-commands lists all")
        return str(self.types[command]["arg-type"])

    def event(self, name: str) -> str:
        """The name again. Raises UsageError for an event that this QEMU never sends."""
        if name not in self.events():
            raise unknown("event", name, self.events(), "--events without a name shows all that come")
        return name

    def kind(self, type: str) -> str:
        """`string`, `int`, `number`, `boolean`, `null`, `value` of builtins, else enum, array, object or alternate."""
        row = self.types[type]
        return str(row["json-type"] if row["meta-type"] == "builtin" else row["meta-type"])

    def members(self, type: str, given: Mapping[str, Any]) -> tuple[Member, ...]:
        """The keys of an object; where they depend on one of them (`tag`), by what is `given` for it."""
        row = self.types[type]
        own = tuple(Member(one["name"], one["type"], "default" not in one) for one in row["members"])
        case = given.get(row.get("tag", ""))
        for variant in row.get("variants", ()):
            if variant["case"] == case:
                return own + self.members(variant["type"], {})
        return own

    def values(self, type: str) -> tuple[str, ...]:
        """The words of an enum."""
        row = self.types[type]
        # `values` is deprecated since 6.2, `members` is not in older ones.
        return tuple(one["name"] for one in row["members"]) if "members" in row else tuple(row["values"])

    def element(self, type: str) -> str:
        """The type of what is in an array."""
        return str(self.types[type]["element-type"])

    def choices(self, type: str) -> tuple[str, ...]:
        """The types that an alternate may be."""
        return tuple(one["type"] for one in self.types[type]["members"])


def unknown(what: str, name: str, known: tuple[str, ...], otherwise: str) -> UsageError:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else otherwise
    return UsageError(f"there is no {what} {name!r} in this QEMU", hint=hint)


async def load(session: Session) -> Schema:
    """Ask the peer; about 200 KiB."""
    rows = await session.execute("query-qmp-schema")
    return Schema({row["name"]: row for row in rows})
