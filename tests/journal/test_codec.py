"""Records come back as they were written, whatever is in them; what is no record is refused in one way."""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_esd.journal import codec
from qemu_esd.model import resource
from qemu_esd.model.disk import Endpoint, Layer, TlsTcp, UnixPath
from qemu_esd.model.pace import Bandwidth
from qemu_esd.model.record import Entered, Entry, GuestRecord, Held, LinkRecord, Measured, Released, State
from qemu_esd.model.resource import File, Resource
from qemu_esd.model.vm import QemuProcess

RECORDS = (GuestRecord, LinkRecord)
measured = st.builds(Measured, ms=st.floats(allow_nan=False))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["kind", "plan", "state", "path", "name"]), inner),
    max_leaves=8,
)


def union(kind: Any) -> st.SearchStrategy[Any]:
    """Every member of a union as often as any other."""
    return st.one_of(*(measured if member is Measured else st.from_type(member) for member in get_args(kind)))


@pytest.mark.parametrize("kind", [Endpoint, Layer, Resource, Entry], ids=["Endpoint", "Layer", "Resource", "Entry"])
def test_each_member_of_a_union_comes_back(kind: Any) -> None:
    @given(union(kind))
    @settings(max_examples=30)
    def comes_back(value: object) -> None:
        assert codec.load(codec.dump(value, kind), kind) == value

    comes_back()


@pytest.mark.parametrize("kind", RECORDS)
def test_the_records_on_hosts_come_back(kind: type[object]) -> None:
    @given(st.from_type(kind))
    @settings(max_examples=30)
    def comes_back(record: object) -> None:
        text = codec.dump(record)
        assert codec.load(text, kind) == codec.load(text.encode(), kind) == record

    comes_back()


@given(union(Entry))
@settings(max_examples=30)
def test_an_entry_is_one_line(entry: Entry) -> None:
    assert codec.dump(entry, Entry).splitlines() == [codec.dump(entry, Entry)]


def test_bytes_of_a_command_line_that_are_no_text_come_back() -> None:
    process = QemuProcess(1, "vm", (b"/caf\xe9.img".decode(errors="surrogateescape"),), "/")
    assert codec.load(codec.dump(process).encode(), QemuProcess) == process


@given(json_values, st.sampled_from([GuestRecord, LinkRecord, Entry, Resource]))
@settings(max_examples=60)
def test_other_json_is_refused_in_one_way(document: object, kind: Any) -> None:
    with pytest.raises(codec.RecordError, match="cannot read a "):
        codec.load(json.dumps(document), kind)


@given(st.binary())
def test_other_bytes_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(codec.RecordError, match="cannot read a GuestRecord"):
        codec.load(data, GuestRecord)


def test_a_field_that_is_not_known_is_refused() -> None:
    """A record of a later version may mean more than we understand."""
    document = json.loads(codec.dump(File("a", "/x"), Resource))
    with pytest.raises(codec.RecordError):
        codec.load(json.dumps({**document, "later": 1}), Resource)  # type: ignore[arg-type]


def test_a_field_that_is_missing_is_refused() -> None:
    document = json.loads(codec.dump(GuestRecord("vm", "0", 1, ())))
    del document["uuid"]
    with pytest.raises(codec.RecordError):
        codec.load(json.dumps(document), GuestRecord)


def test_a_member_of_another_union_is_refused() -> None:
    with pytest.raises(codec.RecordError, match="TlsTcp or PlainTcp or UnixPath"):
        codec.load(codec.dump(File("a", "/x"), Resource), Endpoint)  # type: ignore[arg-type]


def test_members_with_the_same_fields_keep_their_class() -> None:
    held, released = Held(File("a", "/x")), Released(File("a", "/x"))
    assert codec.load(codec.dump(held, Entry), Entry) == held  # type: ignore[arg-type]
    assert codec.load(codec.dump(released, Entry), Entry) == released  # type: ignore[arg-type]


def test_no_resource_is_left_out_of_the_union() -> None:
    """A class that is not in it could be held and never be read back."""
    classes = {each for each in vars(resource).values() if isinstance(each, type) and is_dataclass(each)}
    assert classes == set(get_args(Resource))


def test_what_a_line_looks_like() -> None:
    """The words that journals of former runs are written in."""
    assert json.loads(codec.dump(Entered(State.COMMITTED), Entry)) == {"kind": "Entered", "state": "committed"}
    assert json.loads(codec.dump(UnixPath("/x"), Endpoint)) == {"kind": "UnixPath", "path": "/x"}
    tls = {"kind": "TlsTcp", "address": "192.0.2.1", "port": 1, "key_dir": "/k"}
    assert json.loads(codec.dump(TlsTcp("192.0.2.1", 1, "/k"), Endpoint)) == tls


@pytest.mark.parametrize("bandwidth", [None, 1 << 20, "auto"])
def test_a_bandwidth_comes_back(bandwidth: Bandwidth) -> None:
    record = GuestRecord("vm", "0", 1, (), bandwidth=bandwidth)
    assert codec.load(codec.dump(record), GuestRecord) == record


@pytest.mark.parametrize("text", ['"fast"', "1.5", "true", "[]"])
def test_what_is_no_bandwidth_is_refused(text: str) -> None:
    whole = codec.dump(GuestRecord("vm", "0", 1, ())).replace('"bandwidth": null', f'"bandwidth": {text}')
    with pytest.raises(codec.RecordError):
        codec.load(whole, GuestRecord)
