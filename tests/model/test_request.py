"""What the user asks of `migrate`: the handler of each disk, and names that no disk has."""

from __future__ import annotations

import pytest

from qemu_esd.errors import UsageError
from qemu_esd.model.policy import Handler
from qemu_esd.model.request import Request
from tests.support.samples import disk

DISKS = (disk("root"), disk("data"))


def request(**handlers: Handler) -> Request:
    return Request("vm", "b", Handler.BACKGROUND, disk_handlers=handlers)


def test_a_disk_without_a_word_of_its_own_has_the_common_handler() -> None:
    handlers = [request(data=Handler.MISS).handler_of(each) for each in DISKS]
    assert handlers == [Handler.BACKGROUND, Handler.MISS]


def test_disks_that_are_there_are_taken() -> None:
    request(root=Handler.MISS, data=Handler.REDIRECT).check_disks(DISKS)


@pytest.mark.parametrize(
    ("name", "hint"), [("dta", "did you mean data?"), ("zzz", "its disks are root, data"), ("", "root, data")]
)
def test_a_disk_that_is_not_there_is_refused(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match="vm has no disk") as raised:
        request(**{name: Handler.MISS}).check_disks(DISKS)
    assert hint in (raised.value.hint or "")


def test_a_guest_without_disks_says_so() -> None:
    with pytest.raises(UsageError) as raised:
        request(data=Handler.MISS).check_disks(())
    assert raised.value.hint == "its disks are none"
