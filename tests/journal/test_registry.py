"""The guests that this controller has seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_esd.journal import registry
from qemu_esd.journal.codec import RecordError
from qemu_esd.journal.registry import Known

ODD = ("web server", "../../x", "é", "-rf", "a/b", "x.json", "x.new", "x")


def test_nobody_is_known_at_first() -> None:
    assert registry.find("vm") is None
    assert list(registry.everything()) == []


def test_a_guest_is_known_with_its_hosts_in_order() -> None:
    for host in ("a", "b", "a"):
        registry.remember("vm", host)
    assert registry.find("vm") == Known("vm", ("a", "b", "a"))


def test_a_host_that_it_is_on_already_is_not_told_twice() -> None:
    for host in ("a", "a", "b", "b"):
        registry.remember("vm", host)
    assert registry.find("vm") == Known("vm", ("a", "b"))


@pytest.mark.parametrize("name", ODD)
def test_any_name_comes_back(name: str, home: Path) -> None:
    registry.remember(name, "a")
    assert registry.find(name) == Known(name, ("a",))
    assert [path.parent for path in home.rglob("*.json")] == [home / "guests"]


def test_guests_do_not_meet() -> None:
    for name in ODD:
        registry.remember(name, f"host of {name}")
    assert {known.name: known.hosts for known in registry.everything()} == {name: (f"host of {name}",) for name in ODD}


def test_a_forgotten_guest_is_gone_and_may_be_forgotten_twice() -> None:
    registry.remember("vm", "a")
    registry.remember("other", "a")
    for _ in range(2):
        registry.forget("vm")
        assert registry.find("vm") is None
        assert [known.name for known in registry.everything()] == ["other"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "vm"}', "null"])
def test_a_damaged_file_is_told_as_one(text: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry.remember("vm", "a")
    (home / "guests" / "vm.json").write_text(text)
    with pytest.raises(RecordError, match="Known") as raised:
        registry.find("vm")
    assert f"rm {home / 'guests' / 'vm.json'}" in (raised.value.hint or "")
    registry.remember("other", "a")
    assert [known.name for known in registry.everything()] == ["other"]
    assert str(home / "guests" / "vm.json") in "".join(capsys.readouterr())
