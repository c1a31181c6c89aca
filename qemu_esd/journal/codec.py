"""Records as JSON and back. A union is written with the name of its class, so that a reader needs no guess.

cattrs is loaded with the first record: where nothing is written down yet, nobody waits for it.
"""

from __future__ import annotations

import json
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

from qemu_esd.errors import EsdError
from qemu_esd.model.disk import Endpoint, Layer
from qemu_esd.model.pace import AUTO, Bandwidth
from qemu_esd.model.record import Entry
from qemu_esd.model.resource import Resource
from qemu_esd.model.trail import Mark

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")


@cache
def _converter() -> Converter:
    from cattrs import Converter
    from cattrs.strategies import configure_tagged_union

    converter = Converter(forbid_extra_keys=True)
    converter.register_unstructure_hook(Enum, lambda member: member.value)
    converter.register_structure_hook(Bandwidth, _bandwidth)
    for union in (Endpoint, Layer, Resource, Entry, Mark):
        configure_tagged_union(union, converter, tag_name="kind")
    return converter


def _bandwidth(value: Any, _: object) -> Bandwidth:
    if value in (None, AUTO) or type(value) is int:
        return cast("Bandwidth", value)
    raise ValueError(f"{value!r} is no bandwidth")


class RecordError(EsdError):
    """Something written down cannot be read back: torn, of another version, or changed by somebody."""


def dump(value: object, kind: Any = None) -> str:
    """One line of JSON. `kind` names the union that `value` is read back as."""
    # ASCII only: a command line may hold bytes that are no UTF-8, and those come back only from an escape.
    return json.dumps(_converter().unstructure(value, unstructure_as=kind or type(value)))


def load(text: str | bytes, kind: type[T]) -> T:
    """The record in `text`; raises RecordError."""
    from cattrs import BaseValidationError

    try:
        return _converter().structure(json.loads(text), kind)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, BaseValidationError) as error:
        raise RecordError(f"cannot read a {_name(kind)}: {error}") from error


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or " or ".join(part.__name__ for part in get_args(kind))
