"""A journal that cannot be read, as a user meets it: named, with what to do; other guests are told of as ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qemu_esd.journal import lines, registry, store
from qemu_esd.model.record import Entered, State
from tests.cli.conftest import Say
from tests.support.samples import plan


def gone(path: Path) -> Path:
    path.unlink()
    return path


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a line of garbage": lambda path: path.write_bytes(path.read_bytes() + b"garbage\n"),
    "garbage all over": lambda path: path.write_bytes(b"\x93garbage\n" * 50),
    "another version": lambda path: path.write_bytes(b'{"time": 1, "entry": {"kind": "Later"}}\n'),
    "a folder in its place": lambda path: gone(path).mkdir(),
    "a link to itself": lambda path: gone(path).symlink_to(path),
    "no plan": lambda path: path.write_bytes(lines.write(Entered(State.PREPARING))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_status_names_it_and_tells_of_the_others(say: Say, damage: str) -> None:
    path = two_guests()
    DAMAGES[damage](path)
    told = say("status", "--json")
    assert told.status == 0
    assert {vm["vm"] for vm in json.loads(told.out)["vms"]} == {"vm", "other"}
    others = next(vm for vm in json.loads(told.out)["vms"] if vm["vm"] == "other")
    assert "qemu-esd resume 22222222" in others["problem"]
    assert str(path) in told.err.replace("\n", "")
    for command in ("resume", "rollback"):
        refused = say(command, "11111111")
        assert (refused.status, refused.out) == (3, "")
        assert (str(path) in refused.err.replace("\n", ""), "bug" in refused.err) == (True, False), refused
        assert "Traceback" not in refused.err


def test_where_its_plan_can_be_read_its_guest_is_warned_of_it(say: Say) -> None:
    path = two_guests()
    DAMAGES["a line of garbage"](path)
    (seen,) = json.loads(say("status", "vm", "--json").out)["vms"]
    assert f"{path} cannot be read: line 2" in seen["problem"]
    for words in (("resume", "vm"), ("settle", "vm"), ("migrate", "vm", "b", "--from", "local", "--policy", "miss")):
        refused = say(*words)
        assert (refused.status, "cannot be read: line 2" in refused.err.replace("\n", " ")) == (3, True), refused


def test_one_that_was_never_begun_is_nobodys_concern(say: Say) -> None:
    path = two_guests()
    path.write_bytes(b'{"time": 1')
    told = say("status")
    assert (told.status, told.err) == (0, "")
    refused = say("rollback", "11111111")
    assert (refused.status, f"rm {path}" in refused.err) == (3, True), refused


def two_guests() -> Path:
    """Two migrations that were broken off; the journal of the first."""
    for id, vm in (("11111111", "vm"), ("22222222", "other")):
        with store.begin(plan(id, vm)):
            registry.remember(vm, "local")
    return store.path_of("11111111")
