"""Who came into trouble from one look to the next, and who is well again."""

from __future__ import annotations

from dataclasses import replace

from qemu_esd.trouble import news, trouble_of
from qemu_esd.view import GuestView, of_absent

WELL = GuestView(
    *("0badcafe", "vm 1", "a", "b", True, "handed-over", None, None, None, (), "b", "up", None),
    run_state="running",
    upstream=("a",),
)
DOWN = replace(WELL, link="down", run_state="io-error", io_errors={"vda": "failed"})
FULL = replace(WELL, run_state="io-error", io_errors={"vda": "nospace"})


def test_what_trouble_is() -> None:
    told = {name: trouble_of(guest) for name, guest in (("down", DOWN), ("full", FULL))}
    assert {name: trouble and trouble.problem for name, trouble in told.items()} == {
        "down": "vm 1 runs on b, and a does not answer it",
        "full": "vm 1 stands still on b: no space is left for vda",
    }
    assert {trouble and trouble.hint for trouble in told.values()} == {"qemu-esd status 'vm 1'"}
    assert trouble_of(WELL) is None
    # It has never moved: what befalls it is none of our business.
    assert trouble_of(replace(FULL, committed=False)) is None


def test_what_is_news() -> None:
    away = of_absent("vm 1", "b", "unreachable", "no answer")
    for before, now, told in (
        ((), WELL, []),
        ((), DOWN, [(DOWN, trouble_of(DOWN))]),
        (("vm 1",), DOWN, []),
        (("vm 1",), FULL, []),
        (("vm 1",), away, []),
        (("vm 1",), WELL, [(WELL, None)]),
    ):
        assert list(news(before, [now])) == told
