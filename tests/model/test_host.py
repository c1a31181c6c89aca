"""Paths on a host: no VM name leaves its folder or meets another's, and sockets stay short enough for a kernel."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.model.host import HostPaths, guest_sockets, vm_key

PATHS = HostPaths("/var/lib/qemu-esd", "/run/qemu-esd")
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,39}")
# A unix socket's path ends at 107 bytes (sun_path, with its NUL).
SOCKET_BYTES = 107

# Command lines may hold bytes that are no UTF-8; Python carries them as lone surrogates.
anything = st.text() | st.binary().map(lambda data: data.decode(errors="surrogateescape"))


@given(anything)
def test_every_name_becomes_one_harmless_file_name(name: str) -> None:
    assert KEY.fullmatch(vm_key(name))


@given(st.from_regex(KEY, fullmatch=True))
def test_a_harmless_name_is_left_as_it_is(name: str) -> None:
    assert vm_key(name) == name


@given(anything, anything)
def test_no_two_names_share_a_key(one: str, other: str) -> None:
    assert (vm_key(one) == vm_key(other)) == (one == other)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-rf", "a b", "x\n", "é", "a" * 41])
def test_a_name_that_could_do_harm_keeps_a_readable_part(name: str) -> None:
    readable, _, digest = vm_key(name).rpartition(".")
    assert re.fullmatch(r"[0-9a-f]{12}", digest)
    assert readable in (re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:20], "vm")


@given(anything, st.from_regex(KEY, fullmatch=True).filter(lambda suid: len(suid) <= 20), st.integers(0, 9999))
def test_everything_of_a_guest_lies_in_our_folders(name: str, suid: str, generation: int) -> None:
    for path in (PATHS.vm_state(name), PATHS.guest_record(name), PATHS.console_log(name, generation)):
        assert path.startswith(f"{PATHS.state}/vm/{vm_key(name)}")
    overlay = PATHS.overlay(name, suid, generation)
    assert overlay.startswith(f"{PATHS.state}/disks/")
    assert overlay.count("/") == PATHS.state.count("/") + 2


def test_an_overlay_goes_where_the_user_wants_it() -> None:
    assert PATHS.overlay("vm", "S1", 3, "/big") == "/big/vm.S1.g3.qcow2"


@given(st.integers(0, 20), st.integers(0, 20))
def test_each_generation_has_files_of_its_own(one: int, other: int) -> None:
    same = one == other
    assert (PATHS.overlay("vm", "S1", one) == PATHS.overlay("vm", "S1", other)) == same
    assert (PATHS.console_log("vm", one) == PATHS.console_log("vm", other)) == same


@given(anything)
def test_sockets_are_five_and_short_enough(name: str) -> None:
    sockets = guest_sockets(HostPaths("/s", "/run/user/4294967294/qemu-esd"), name)
    paths = {sockets.control, sockets.observe, sockets.user, sockets.console, sockets.nbd}
    assert len(paths) == 5
    assert all(len(path.encode()) <= SOCKET_BYTES for path in paths)


def test_a_migration_and_a_unit_have_folders_of_their_own() -> None:
    folders = {PATHS.link_state("m"), PATHS.link_run("m"), PATHS.unit("m"), PATHS.vm_state("m"), PATHS.vm_run("m")}
    assert len(folders) == 5
