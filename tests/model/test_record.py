"""The states of a migration, and how many layers of a disk are here."""

from __future__ import annotations

import pytest

from qemu_esd.model.disk import Chain, Image, Link, UnixPath, images, link_of, top_image
from qemu_esd.model.record import DiskRecord, State

TOP, BASE = Image("/top", "qcow2"), Image("/base", "raw")
LINK = Link(UnixPath("/nbd"), "export")


def test_the_point_of_no_return_is_the_commit() -> None:
    before = {State.PLANNED, State.PREPARING, State.SWITCHING, State.ROLLED_BACK}
    given_up = {State.DISCARDING, State.DISCARDED}
    assert {state for state in State if not state.committed} == before | given_up


@pytest.mark.parametrize(
    ("chain", "top", "link", "level"),
    [
        ((TOP, BASE), TOP, None, 1),
        ((TOP, LINK), TOP, LINK, 0),
        ((TOP, BASE, LINK), TOP, LINK, 1),
        ((LINK,), None, LINK, 0),
    ],
)
def test_what_a_chain_holds(chain: Chain, top: Image | None, link: Link | None, level: int) -> None:
    assert (top_image(chain), link_of(chain)) == (top, link)
    assert images(chain) == tuple(layer for layer in chain if layer is not LINK)
    assert DiskRecord("root", "S1", 1, 1, chain).level == level
