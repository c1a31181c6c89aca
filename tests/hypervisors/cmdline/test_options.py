"""Command lines as options and back."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.errors import RefusedError
from qemu_esd.hypervisors.cmdline.flags import ALONE, WITH_VALUE
from qemu_esd.hypervisors.cmdline.options import Option, join, split
from qemu_esd.hypervisors.cmdline.reader import read
from tests.hypervisors.cmdline.running import BINARY

OPTIONS = st.lists(
    st.builds(Option, st.sampled_from(sorted(WITH_VALUE)), st.text())
    | st.builds(Option, st.sampled_from(sorted(ALONE)))
)


@given(OPTIONS)
def test_what_is_written_is_read_again(options: list[Option]) -> None:
    assert split(join("qemu", options)) == ("qemu", tuple(options))


def test_both_dashes_values_that_look_like_options_and_images_without_a_flag() -> None:
    argv = ["qemu", "--nodefaults", "-append", "-S", "disk.img", "--m", "1G", "-snapshot", "two.img"]
    expected = (
        Option("nodefaults"),
        Option("append", "-S"),
        Option("hda", "disk.img"),
        Option("m", "1G"),
        Option("snapshot"),
        Option("hda", "two.img"),
    )
    assert split(argv) == ("qemu", expected)


def test_an_unknown_option_takes_a_value_unless_another_option_follows() -> None:
    assert split(["q", "-new", "v", "-newer", "-S"])[1] == (Option("new", "v"), Option("newer"), Option("S"))


@pytest.mark.parametrize("argv", [[], ["qemu", "-m"], ["qemu", "-nodefaults", "-device"]])
def test_a_cut_off_line_is_refused(argv: list[str]) -> None:
    with pytest.raises(RefusedError):
        split(argv)


def test_an_unreadable_value_is_refused_by_its_name() -> None:
    with pytest.raises(RefusedError, match=r"-device \{'driver'"):
        read(["qemu", "-device", "{'driver': 'nvme'}"])


def test_the_tables_know_every_option_of_the_installed_qemu() -> None:
    text = subprocess.run([BINARY, "-help"], check=True, capture_output=True, text=True).stdout
    words = set(re.findall(r"^-{1,2}([A-Za-z][\w-]*)", text, re.MULTILINE))
    assert words - (ALONE | WITH_VALUE) == set()
    assert not ALONE & WITH_VALUE


def test_an_option_without_a_value_is_one_for_the_installed_qemu() -> None:
    """QEMU says "requires an argument" of the others, and exits for the lack of it."""
    for flag in ("nodefaults", "nographic", "S", "usb", "snapshot", "no-reboot", "enable-kvm", "mem-prealloc"):
        assert flag in ALONE
        assert "requires an argument" not in last_words(flag)
    for flag in ("m", "device", "add-fd", "plugin", "audio", "incoming", "sandbox", "action"):
        assert flag in WITH_VALUE
        assert "requires an argument" in last_words(flag)


def last_words(flag: str) -> str:
    """What QEMU says to a line that ends with this option, and that is wrong in front of it."""
    argv = [BINARY, "-machine", "none", "-display", "none", "-chardev", "bad", f"-{flag}"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stderr
