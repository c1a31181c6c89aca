"""A journal in which somebody, or a failing disk, has changed something: never other records than were written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_esd.journal import lines
from qemu_esd.journal.lines import DamagedJournalError
from qemu_esd.model.record import Entered, Entry, Held, Measured, Planned, Released, State
from qemu_esd.model.resource import File, Folder, Unit
from tests.support.samples import plan

ROOT = Path(__file__).parents[2]
HELD = st.builds(Held, st.builds(File, st.sampled_from("ab"), st.text(max_size=8)))
ENTRIES = st.lists(
    HELD | st.sampled_from([Entered(State.PREPARING), Released(Unit("a", "x")), Measured("downtime", 12.5)]), max_size=4
)
# Of a length that is another one each time, because a line has the time in it.
PLACES = st.integers(0, 1 << 20)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "0badcafe.jsonl"


def scratch(data: bytes) -> tuple[Entry, ...]:
    """What a reader makes of these bytes."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return lines.read(Path(file.name))[0]


@given(ENTRIES, PLACES)
@settings(max_examples=40)
def test_any_prefix_reads_as_a_prefix_of_its_records(rest: list[Entry], place: int) -> None:
    entries = (Planned(plan()), *rest)
    written = b"".join(map(lines.write, entries))
    cut = written[: place % (len(written) + 1)]
    assert scratch(cut) == entries[: cut.count(b"\n")]


@given(ENTRIES, PLACES, st.integers(0, 255))
@settings(max_examples=200)
def test_a_byte_that_has_changed_is_noticed_or_of_no_consequence(rest: list[Entry], place: int, byte: int) -> None:
    entries = (Planned(plan()), *rest)
    written = bytearray(b"".join(map(lines.write, entries)))
    written[place % len(written)] = byte
    try:
        told = scratch(bytes(written))
    except DamagedJournalError:
        return
    assert told == entries[: len(told)]


def test_every_bit_of_a_short_journal(file: Path) -> None:
    """The same without chance: of the path of a file that a rollback would remove."""
    entries: tuple[Entry, ...] = (
        Held(File("hostB", "/var/lib/qemu-esd/disks/vm.vda.g1.qcow2")),
        Entered(State.SWITCHING),
    )
    written = b"".join(map(lines.write, entries))
    noticed = 0
    for place in range(len(written) * 8):
        damaged = bytearray(written)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            told, _ = lines.read(file)
            assert told == entries[: len(told)]
        except DamagedJournalError as error:
            noticed += 1
            assert str(file) in error.what
    assert noticed > len(written) * 4


@pytest.mark.parametrize("junk", [b"[" * 100_000, b"\0" * 4096, b'"' + b"\\ud800" * 9 + b'"', b"9" * 10_000, b"NaN"])
def test_garbage_of_any_kind_is_damage(file: Path, junk: bytes) -> None:
    file.write_bytes(lines.write(Planned(plan())) + junk + b"\n")
    with pytest.raises(DamagedJournalError, match=re.escape(f"the journal {file} cannot be read: line 2: ")) as error:
        lines.read(file)
    assert error.value.exit_status == 3
    assert f"mv {file} " in (error.value.hint or "")
    assert "docs/recovery.md" in (error.value.hint or "")


def test_a_line_without_a_check_sum_is_of_a_former_version(file: Path) -> None:
    document = json.loads(lines.write(Entered(State.COMMITTED)))
    del document["crc"]
    file.write_text(json.dumps(document) + "\n")
    assert lines.read(file)[0] == (Entered(State.COMMITTED),)


def test_a_line_of_a_later_version_is_not_guessed_at(file: Path) -> None:
    document = json.loads(lines.write(Held(Folder("a", "/x"))))
    document["entry"]["kind"] = "Later"
    del document["crc"]
    file.write_text(json.dumps(document) + "\n")
    with pytest.raises(DamagedJournalError, match="line 1: cannot read a "):
        lines.read(file)


def test_without_the_rights_to_read_it() -> None:
    """By somebody who is not root: root reads everything."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        journal = Path(folder, "migrations", "11111111.jsonl")
        journal.parent.mkdir()
        journal.write_bytes(lines.write(Planned(plan("11111111"))))
        journal.chmod(0o600)
        script = """
import os, sys
from qemu_esd.errors import EsdError
from qemu_esd.journal import shelf, store
os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    shelf.find("11111111")
except EsdError as error:
    print(error.exit_status, error, sep=" | ")
"""
        argv = [sys.executable, "-c", script]
        done = subprocess.run(
            argv, cwd=ROOT, capture_output=True, text=True, check=True, env={"QEMU_ESD_STATE": folder}, timeout=60
        )
    assert done.stdout == f"3 | the journal {journal} cannot be read: Permission denied\n"
