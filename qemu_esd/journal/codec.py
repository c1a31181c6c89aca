"""Records as JSON and back. A union is written with the name of its class, so that a reader needs no guess."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, TypeVar, get_args

from cattrs import BaseValidationError, Converter
from cattrs.strategies import configure_tagged_union

from qemu_esd.errors import EsdError
from qemu_esd.model.disk import Endpoint, Layer
from qemu_esd.model.record import Entry
from qemu_esd.model.resource import Resource

T = TypeVar("T")


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    converter.register_unstructure_hook(Enum, lambda member: member.value)
    for union in (Endpoint, Layer, Resource, Entry):
        configure_tagged_union(union, converter, tag_name="kind")
    return converter


_CONVERTER = _converter()


class RecordError(EsdError):
    """Something written down cannot be read back: torn, of another version, or changed by somebody."""


def dump(value: object, kind: Any = None) -> str:
    """One line of JSON. `kind` names the union that `value` is read back as."""
    # ASCII only: a command line may hold bytes that are no UTF-8, and those come back only from an escape.
    return json.dumps(_CONVERTER.unstructure(value, unstructure_as=kind or type(value)))


def load(text: str | bytes, kind: type[T]) -> T:
    """The record in `text`; raises RecordError."""
    try:
        return _CONVERTER.structure(json.loads(text), kind)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, BaseValidationError) as error:
        raise RecordError(f"cannot read a {_name(kind)}: {error}") from error


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or " or ".join(part.__name__ for part in get_args(kind))
