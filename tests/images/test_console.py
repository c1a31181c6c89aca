"""Reading the console: the load's lines are told from the kernel's; escapes and repeated characters come right."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.console import MARK, MOST_REPEATED, STATUS, parse

DISK = "disk name=vdb size=8400896 serial=esd429de4fcb9eb0fbd path=pci0000:00/0000:00:03.0/virtio2 block=4096"


def said(text: str) -> str:
    return f"{MARK}{text} sum={crc32(text.encode()):08x}"


def test_a_status_line() -> None:
    line = parse(said("t=3 mode=verify ops=12 bad=0") + "\r\n")
    assert line is not None
    assert (line.word, line.values["mode"], line.number("ops")) == (STATUS, "verify", 12)


def test_words_of_two_and_values_with_signs() -> None:
    line = parse(said("SCAN DONE pass=1 why=a=b,sum=ok serial=x%7Ey%20z"))
    assert line is not None
    assert line.word == "SCAN DONE"
    assert dict(line.values) == {"pass": "1", "why": "a=b,sum=ok", "serial": "x~y z"}


@pytest.mark.parametrize("before", ["[    1.9] reboot: ", f"{MARK}t=3 mode=ver", said("t=3")])
def test_a_line_behind_an_unfinished_one(before: str) -> None:
    line = parse(before + said("paused"))
    assert line is not None
    assert (line.word, dict(line.values)) == ("paused", {})


@pytest.mark.parametrize("text", ["", "[    2.1] I/O error, dev vda", "init: the load ended with status 1", "a=b  c=d"])
def test_anything_else_is_not_a_line_of_the_load(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("text", [said(DISK)[:-1], said(DISK).replace("name=vdb", "name=vdc"), f"{MARK}paused"])
def test_a_line_that_is_not_what_was_said_is_none(text: str) -> None:
    assert parse(text) is None


@given(st.lists(st.integers(0, len(said(DISK)) - 1), max_size=MOST_REPEATED))
def test_characters_that_came_twice(repeated: list[int]) -> None:
    text = said(DISK)
    for at in sorted(repeated, reverse=True):
        text = text[: at + 1] + text[at:]
    assert parse(text) == parse(said(DISK)) is not None
