"""What holds for every command line, not only for those of the stories."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.errors import RefusedError, UsageError
from qemu_esd.hypervisors.cmdline.carried import Carried, Target
from qemu_esd.hypervisors.cmdline.carry import carry
from qemu_esd.hypervisors.cmdline.flags import ALONE, WITH_VALUE
from qemu_esd.hypervisors.cmdline.keyval import join
from qemu_esd.hypervisors.cmdline.options import Option, split
from qemu_esd.hypervisors.cmdline.options import join as join_options
from qemu_esd.hypervisors.cmdline.reader import read
from tests.hypervisors.cmdline.stories import CONSOLE, CONTROL

TARGET = Target("pc-q35-7.2", (CONTROL,), CONSOLE)

WORDS = st.sampled_from(
    [
        *"a,={}:/-0",
        "json:",
        "chardev:",
        "mon:",
        "id=",
        "file=",
        "if=",
        "index=",
        "type=",
        "driver",
        "nbd://",
        "stdio",
    ]
)
ODD_VALUES = st.lists(WORDS, max_size=8).map("".join)
ODD_OPTIONS = st.lists(
    st.builds(Option, st.sampled_from(sorted(WITH_VALUE)), ODD_VALUES)
    | st.builds(Option, st.sampled_from(sorted(ALONE)))
)

PROPERTIES = st.dictionaries(st.sampled_from(["id", "serial", "addr", "x-y"]), st.text(st.characters(codec="utf-8")))
DEVICES = st.lists(st.tuples(st.sampled_from(["virtio-blk-pci", "e1000", "pvpanic"]), PROPERTIES, st.booleans()))


def carried(options: Sequence[Option]) -> Carried:
    return carry(read(join_options("qemu", options), "/cwd"), [], TARGET)


@given(ODD_OPTIONS)
def test_nonsense_is_carried_or_refused_but_nothing_breaks(options: list[Option]) -> None:
    with contextlib.suppress(RefusedError, UsageError):
        assert carried(options).argv[0] == "qemu"


@given(DEVICES)
def test_devices_that_nobody_touches_stay_as_written(devices: list[tuple[str, dict[str, str], bool]]) -> None:
    options = [Option("device", written(*device)) for device in devices]
    assert [one for one in split(carried(options).argv)[1] if one.flag == "device"] == options


def written(driver: str, properties: dict[str, str], as_json: bool) -> str:
    values = {"driver": driver, **properties}
    return json.dumps(values) if as_json else join(tuple(values.items()), "driver")


@pytest.mark.parametrize(
    "argv",
    [
        ["-drive", "file=a,index=x"],
        ["-drive", "file=json:{"],
        ["-smp", "two"],
        ["-m", "much"],
        ["-blockdev", "{"],
    ],
)
def test_what_qemu_could_not_have_read_is_refused(argv: list[str]) -> None:
    with pytest.raises((RefusedError, UsageError)):
        read(["qemu", *argv])


def test_the_end_of_every_line_is_ours() -> None:
    argv = carried([Option("S"), Option("incoming", "tcp:0:4444"), Option("daemonize"), Option("pidfile", "/p")]).argv
    assert argv[-5:] == ("-mon", "esd-control,mode=control", "-S", "-incoming", "defer")
    assert argv.count("-S") == 1 and "-daemonize" not in argv and "/p" not in argv


def test_without_monitors_of_ours_there_is_still_none_on_the_terminal() -> None:
    argv = carry(read(["qemu", "-nographic"]), [], Target("pc-q35-7.2", (), CONSOLE)).argv
    assert argv[-5:] == ("-monitor", "none", "-S", "-incoming", "defer")
