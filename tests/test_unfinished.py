"""Committed and not finished: whatever else has to be mended, the command that goes on is named."""

from __future__ import annotations

from qemu_esd.errors import EsdError, HostError
from qemu_esd.migration import unfinished
from tests.support.samples import plan


def test_the_hint_ends_with_the_command_that_goes_on() -> None:
    assert unfinished(plan(), EsdError("no")).hint == "qemu-esd resume 0badcafe"
    told = unfinished(plan(), HostError("libvirt has ended", host="hostB", hint="see that it runs there"))
    assert told.hint == "see that it runs there; then: qemu-esd resume 0badcafe"
    assert told.exit_status == 4
