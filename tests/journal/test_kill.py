"""A writer that is killed at any moment: whatever it said that it wrote is there, and nothing is half there."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qemu_esd.errors import RefusedError
from qemu_esd.journal import store
from qemu_esd.model.record import Entered, Planned, State
from tests.journal.writer import ID, entry
from tests.support.samples import plan

ROOT = Path(__file__).parents[2]


@contextmanager
def writing() -> Iterator[subprocess.Popen[str]]:
    """A writer whose journal is open."""
    argv = (sys.executable, "-m", "tests.journal.writer")
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> int:
    """How many entries the killed writer said that it had written."""
    assert process.stdout is not None
    numbers = [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    assert numbers == list(range(len(numbers)))
    return len(numbers)


@pytest.mark.parametrize("seed", range(4))
def test_what_was_written_is_there_after_a_kill_at_a_random_moment(seed: int) -> None:
    with writing() as process:
        threading.Timer(random.Random(seed).uniform(0, 0.2), process.kill).start()
        written = said(process)
    told = store.read(ID)
    # The last entry may be there unannounced: the kill came between the two.
    assert len(told.entries) - 1 in (written, written + 1)
    assert told.entries == (Planned(plan(ID)), *map(entry, range(len(told.entries) - 1)))
    with store.reopen(ID) as journal:
        journal.append(Entered(State.ROLLED_BACK))
    assert store.read(ID).entries == (*told.entries, Entered(State.ROLLED_BACK))


def test_the_lock_is_that_of_a_process_and_ends_with_it() -> None:
    with writing() as process:
        assert store.at_work(ID)
        with pytest.raises(RefusedError, match="another qemu-esd works"):
            with store.reopen(ID):
                pass
        process.kill()
        process.wait()
        assert not store.at_work(ID)
        with store.reopen(ID) as journal:
            assert journal.story.plan == plan(ID)
