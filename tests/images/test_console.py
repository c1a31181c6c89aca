"""Reading the console: the load's lines are told from the kernel's; escaped values come back as they were."""

from __future__ import annotations

import pytest

from images.console import STATUS, parse


def test_a_status_line() -> None:
    line = parse("esd-load t=3 mode=verify ops=12 bad=0\r\n")
    assert line is not None
    assert (line.word, line.values["mode"], line.number("ops")) == (STATUS, "verify", 12)


def test_words_of_two_and_values_with_signs() -> None:
    line = parse("esd-load SCAN DONE pass=1 why=a=b serial=x%7Ey%20z")
    assert line is not None
    assert line.word == "SCAN DONE"
    assert dict(line.values) == {"pass": "1", "why": "a=b", "serial": "x~y z"}


def test_a_line_behind_an_unfinished_one() -> None:
    line = parse("[    1.9] reboot: esd-load paused")
    assert line is not None
    assert (line.word, dict(line.values)) == ("paused", {})


@pytest.mark.parametrize("text", ["", "[    2.1] I/O error, dev vda", "init: the load ended with status 1"])
def test_anything_else_is_not_a_line_of_the_load(text: str) -> None:
    assert parse(text) is None
