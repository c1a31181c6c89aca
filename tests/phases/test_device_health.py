"""What `doctor` says of devices that look shared."""

from __future__ import annotations

from dataclasses import replace

from qemu_esd.phases import device_health
from tests.support.devices import MOVING, SETTLED, TAKEN, WHOLE


def test_devices_that_are_well() -> None:
    assert not [*device_health.of_host("hosta", [WHOLE]), *device_health.of_host("hostb", [TAKEN])]
    assert not list(device_health.of_pair("hosta", [WHOLE], "hostb", [WHOLE]))


def test_a_move_that_was_broken_off() -> None:
    (found,) = device_health.of_host("hosta", [MOVING])
    assert found.hint.endswith("qemu-esd device move d1 hostb")
    assert not list(device_health.of_pair("hosta", [MOVING], "hostb", [WHOLE]))


def test_one_that_was_never_made() -> None:
    begun = replace(WHOLE, generation=0)
    (found,) = device_health.of_host("hosta", [begun])
    assert found.hint.endswith("qemu-esd device delete d1 --host hosta")
    assert not list(device_health.of_pair("hosta", [begun], "hostb", []))


def test_hosts_that_do_not_know_the_same() -> None:
    for there in ([WHOLE], []):
        (found,) = device_health.of_pair("hostb", [SETTLED], "hosta", there)
        assert (found.host, found.hint) == ("hostb - hosta", "qemu-esd device restore d1")
        (found,) = device_health.of_pair("hosta", there, "hostb", [SETTLED])
        assert (found.host, found.hint) == ("hosta - hostb", "qemu-esd device restore d1")
    assert not list(device_health.of_pair("hostb", [SETTLED], "elsewhere", []))
