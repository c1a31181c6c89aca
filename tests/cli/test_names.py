"""Names of guests and hosts that are none, and names that are not a single word."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Say

MIGRATE = ("migrate", "vm1", "hostB", "--policy", "redirect")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x1b[2Jb"])
@pytest.mark.parametrize(
    "words",
    [
        ("migrate", "NAME", "hostB", "--policy", "miss"),
        ("status", "NAME"),
        ("graph", "NAME"),
        ("map", "NAME"),
        ("report", "NAME"),
        ("policy", "NAME", "miss"),
        ("settle", "NAME"),
        ("release", "NAME"),
        ("resume", "NAME"),
        ("rollback", "NAME"),
        ("qmp", "NAME", "query-status"),
        ("share", "NAME", "--with", "hostB"),
        ("vm", "run", "NAME"),
        ("vm", "start", "NAME"),
        ("vm", "stop", "NAME"),
        ("vm", "cont", "NAME"),
        ("vm", "console", "NAME"),
        ("vm", "log", "NAME"),
        ("vm", "forget", "NAME"),
        ("device", "attach", "d1", "NAME"),
    ],
)
def test_what_is_no_name(say: Say, words: tuple[str, ...], name: str) -> None:
    told = say(*(name if word == "NAME" else word for word in words))
    assert (told.status, told.out, told.err.count("error: ")) == (2, "", 1)
    assert repr(name) in told.err


@pytest.mark.parametrize(
    "words",
    [
        ("migrate", "vm1", "NAME", "--policy", "miss"),
        (*MIGRATE, "--from", "NAME"),
        ("doctor", "local", "NAME"),
        ("resume", "vm1", "--host", "NAME"),
        ("rollback", "vm1", "--force-lost", "NAME"),
        ("qmp", "vm1", "query-status", "--host", "NAME"),
        ("share", "vm1", "--host", "NAME", "--with", "hostB"),
        ("share", "vm1", "--with", "hostB,NAME"),
        ("vm", "run", "vm1", "--host", "NAME"),
        ("vm", "list", "--host", "NAME"),
        ("device", "create", "d1", "--size", "1M", "--host", "local,NAME"),
        ("device", "list", "--host", "NAME"),
        ("device", "show", "d1", "--host", "NAME"),
        ("device", "move", "d1", "NAME"),
        ("host", "restore", "NAME"),
    ],
)
def test_a_host_that_is_nothing_is_not_the_usual_one(say: Say, words: tuple[str, ...]) -> None:
    """As a shell makes it of a variable that is not set."""
    told = say(*(word.replace("NAME", "") for word in words))
    assert (told.status, told.out, told.err.count("error: ")) == (2, "", 1)
    assert "names no host" in told.err


def test_a_command_that_is_named_can_be_given_as_it_is(say: Say) -> None:
    """Also where the guest's name is not a single word."""
    assert "qemu-esd vm log 'my vm'" in say("vm", "console", "my vm").err
    assert "qemu-esd share 'my vm' --host local" in say("share", "my vm").err
