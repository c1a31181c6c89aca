"""The words of a policy: each is known by its own name, and a wrong one is refused with the nearest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.errors import UsageError
from qemu_esd.graph.handlers import HANDLERS
from qemu_esd.model.policy import Handler, check_write_policy, parse_handler

WORDS = ("miss", "redirect", "background", "on-demand")


@pytest.mark.parametrize("word", WORDS)
def test_a_handler_is_known_by_its_word(word: str) -> None:
    assert parse_handler(word).value == word


def test_there_are_four_and_each_has_its_module() -> None:
    assert {handler.value for handler in Handler} == set(WORDS) == {handler.value for handler in HANDLERS}


@pytest.mark.parametrize(
    ("word", "meant"),
    [("ondemand", "on-demand"), ("backgroud", "background"), ("Redirect", "redirect"), ("mis", "miss")],
)
def test_a_slip_is_refused_with_the_nearest_word(word: str, meant: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_handler(word)
    assert (raised.value.hint, raised.value.exit_status) == (f"did you mean {meant}?", 2)
    assert repr(word) in str(raised.value)


def test_what_is_near_to_nothing_is_refused_with_all_words() -> None:
    with pytest.raises(UsageError) as raised:
        parse_handler("qqq")
    assert raised.value.hint == "choose one of miss, redirect, background, on-demand"


@given(st.text().filter(lambda text: text not in WORDS))
def test_nothing_else_is_a_handler(text: str) -> None:
    with pytest.raises(UsageError):
        parse_handler(text)


def test_what_the_handlers_do() -> None:
    assert {handler.value for handler in Handler if handler.keeps_reads} == {"background", "on-demand"}


def test_the_write_policy_that_exists_is_taken() -> None:
    check_write_policy("local")


@pytest.mark.parametrize(("word", "said"), [("through", "not there yet"), ("back", "not there yet"), ("lokal", "no")])
def test_other_write_policies_are_refused(word: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        check_write_policy(word)
    assert raised.value.hint is not None
    assert "local" in raised.value.hint
