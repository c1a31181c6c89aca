"""The SUID: the same wherever it is asked for, and fit to be a serial number, a file name and a part of a node name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.model.suid import MAX_LENGTH, suid_of

FIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,19}")
# Command lines may hold bytes that are no UTF-8; Python carries them as lone surrogates.
anything = st.text() | st.binary().map(lambda data: data.decode(errors="surrogateescape"))


@given(anything, anything, st.none() | anything, st.none() | anything)
def test_whatever_the_disk_is_called_the_suid_is_fit_and_stable(
    vm: str, disk: str, serial: str | None, wwn: str | None
) -> None:
    suid = suid_of(vm, disk, serial=serial, wwn=wwn)
    assert FIT.fullmatch(suid)
    assert suid == suid_of(vm, disk, serial=serial, wwn=wwn)


@given(st.from_regex(FIT, fullmatch=True), st.text(), st.text())
def test_a_fit_serial_is_the_suid_whatever_the_vm_is_called(serial: str, vm: str, disk: str) -> None:
    assert suid_of(vm, disk, serial=serial) == serial


def test_the_wwn_comes_before_the_serial() -> None:
    assert suid_of("vm", "disk", serial="S1", wwn="0x5000c500a1b2c3d4") == "0x5000c500a1b2c3d4"
    assert suid_of("vm", "disk", serial="S1", wwn="") == "S1"


@pytest.mark.parametrize("serial", ["has space", "-dash", "ends\n", "21-characters-of-text", "a/b", "ümlaut"])
def test_an_unfit_serial_becomes_a_digest_of_its_own(serial: str) -> None:
    suid = suid_of("vm", "disk", serial=serial)
    assert suid.startswith("esd")
    assert len(suid) <= MAX_LENGTH
    assert suid != suid_of("vm", "disk", serial=serial + "x")
    assert suid == suid_of("other", "other", serial=serial)


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_without_both_the_vm_and_the_disk_tell_devices_apart(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (suid_of(*one) == suid_of(*other)) == (one == other)


def test_names_that_join_to_the_same_text_are_not_the_same_device() -> None:
    assert suid_of("ab", "c") != suid_of("a", "bc")
