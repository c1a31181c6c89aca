"""The schemas of docs/schema, docs/json.md and what the commands print are of one mind."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from qemu_esd.model.evacuation import Evacuated, Fate, Whereabouts
from qemu_esd.model.record import State
from qemu_esd.model.vm import Kind
from qemu_esd.view import (
    DiskView,
    GuestView,
    HostView,
    JobView,
    JournalView,
    MemoryView,
    MigrationView,
    of_absent,
)
from tests.support.schema import FOLDER, holds, schema

DISK = DiskView("vda", "suid1", "on-demand", "local", 128, 2, 126, True)
MOVED = MigrationView("0badcafe", "vm", "a", "b", True, "handed-over", 46.4, 800.0, None, (DISK,))
GUEST = GuestView(
    "0badcafe", "vm", "a", "b", True, "settling", 46.4, None, None, (DISK,), "b", "down", JobView("vda", 1, 2, 3, None),
    "io-error", 1, ("a",), ("c",), "a problem", 12, 34, {"vda": "nospace"}, 3, "auto",
    (HostView("b", "runs"), HostView("a", "serves", "0badcafe", "tls", "192.0.2.1:49800")),
    JournalView("0badcafe", "settling", True, ("an error",)), MemoryView(1, 2, None, 3), Kind.DOMAIN,
)  # fmt: skip


def status(*guests: GuestView) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps({"vms": [dataclasses.asdict(guest) for guest in guests]}))
    return told


def test_what_is_printed_fits() -> None:
    holds("migrate", json.loads(json.dumps(dataclasses.asdict(MOVED))))
    holds(
        "status", status(GUEST, of_absent("vm2", "a", "unreachable", "no answer"), of_absent("vm3", "a", "lost", None))
    )


@pytest.mark.parametrize("name", ["evacuate", "migrate", "status"])
def test_the_schemas_are_schemas(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))


def test_what_an_evacuation_prints_fits() -> None:
    fates = tuple(Fate("vm", state, "b", 1.5, "a problem", "a command") for state in Whereabouts)
    for done in (
        Evacuated("a", True, ()),
        Evacuated("a", False, (*fates, Fate("vm", fates[0].state, None)), ("suid",)),
    ):
        holds("evacuate", json.loads(json.dumps(dataclasses.asdict(done))))
    with pytest.raises(ValidationError):
        holds("evacuate", dataclasses.asdict(Evacuated("a", True, ())) | {"more": 1})


def test_what_is_wrong_does_not_fit() -> None:
    wrongs: tuple[dict[str, object], ...] = (
        {"link": "sideways"},
        {"job": {}},
        {"state": "gone"},
        {"more": 1},
        {"generation": -1},
        {"kind": "other"},
    )
    for wrong in wrongs:
        (guest,) = status(GUEST)["vms"]
        with pytest.raises(ValidationError):
            holds("status", {"vms": [guest | wrong]})
    (guest,) = status(GUEST)["vms"]
    del guest["hosts"]
    with pytest.raises(ValidationError):
        holds("status", {"vms": [guest]})


def test_every_state_is_known() -> None:
    assert set(State) == set(schema("migrate")["properties"]["state"]["enum"])
    assert set(Whereabouts) == set(schema("evacuate")["$defs"]["fate"]["properties"]["state"]["enum"])
    assert set(State) < set(schema("status")["$defs"]["guest"]["properties"]["state"]["enum"])


def test_every_field_is_documented() -> None:
    page = (FOLDER.parent / "json.md").read_text()
    parts = {"guest": GuestView, "disk": DiskView, "job": JobView, "host": HostView, "journal": JournalView}
    kinds: dict[str, Any] = {**parts, "memory": MemoryView}
    described = {**schema("status")["$defs"], **schema("evacuate")["$defs"]}
    for name, kind in {**kinds, "fate": Fate}.items():
        properties = described[name]["properties"]
        assert set(properties) == {field.name for field in dataclasses.fields(kind)}
        chapter = page.split(f"### {name}\n")[1].split("\n#")[0]
        for field, facts in properties.items():
            assert f"| `{field}` |" in chapter
            assert str(facts["description"]) in chapter
