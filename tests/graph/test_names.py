"""Names in QEMU: well-formed, short enough, and never the same for two things, whatever the device is called."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.graph import names
from qemu_esd.model.suid import suid_of

# As QEMU's id_wellformed() has it; node names end at 31 characters.
WELL_FORMED = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,30}")
LEVELS = 12

suids = st.builds(suid_of, st.text(), st.text(), serial=st.none() | st.text(), wwn=st.none() | st.text())
anything = st.text() | suids | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{19}", fullmatch=True)


def roles() -> list[Callable[[str], str]]:
    """Every function that names one thing of one device."""
    functions = [value for _, value in inspect.getmembers(names, inspect.isfunction)]
    with_one = [each for each in functions if next(iter(inspect.signature(each).parameters)) == "suid"]
    return [each for each in with_one if each not in (names.node, names.export_id)]


def all_names(suid: str) -> list[str]:
    levels = [function(suid, level) for function in (names.overlay, names.file) for level in range(1, LEVELS)]
    exports = [names.export_id(suid, role) for role in ("src", "map", "fill")]
    return [*(role(suid) for role in roles()), *levels, *exports]


@given(anything)
def test_every_name_is_one_that_qemu_takes(suid: str) -> None:
    assert len(roles()) > 10
    for name in all_names(suid):
        assert WELL_FORMED.fullmatch(name), name


@given(anything)
def test_no_two_things_of_a_device_have_the_same_name(suid: str) -> None:
    assert len(set(all_names(suid))) == len(all_names(suid))


@given(anything, anything)
def test_no_two_devices_share_a_name(one: str, other: str) -> None:
    if one != other:
        assert not set(all_names(one)) & set(all_names(other))


@given(suids)
def test_the_device_can_be_read_in_its_names(suid: str) -> None:
    assert all(name.startswith(f"esd-{suid}-") for name in all_names(suid))


def test_the_two_credentials_of_a_migration_differ() -> None:
    assert names.credentials("m") != names.incoming_credentials("m")
    assert names.credentials("m") != names.credentials("n")
