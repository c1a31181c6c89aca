"""The controller's wall clock jumps by hours, both ways, while a guest moves: nothing is decided by it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd.journal import shelf, store
from qemu_esd.model.record import Measured
from tests.faults import report
from tests.integration.support.commands import Said, end, start
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet

pytestmark = pytest.mark.lab

SHIM = Path(__file__).with_name("clock.c")
HOUR = 3600
STEP_SECONDS = 0.3


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file: by how many seconds the clock of all commands is off."""
    shim, file = tmp_path / "clock.so", tmp_path / "clock"
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(shim), str(SHIM)], check=True)
    file.write_text("0")
    monkeypatch.setenv("ESD_CLOCK", str(file))
    monkeypatch.setenv("LD_PRELOAD", str(shim))
    return file


@pytest.mark.skipif(os.environ.get("ESD_FAULTS") != "all", reason="two migrations; ESD_FAULTS=all")
async def test_the_clock_jumps(fleet: Fleet, clock: Path) -> None:
    """There and back again: the second migration begins an hour before the first, by the clock."""
    guest = await fleet.boot(Drive("vda", 7, size=8 * MIB), load="esd.mode=verify esd.rate=100")
    for target, first in ((fleet.b, 5 * HOUR), (fleet.a, -5 * HOUR)):
        began = time.monotonic()
        told = await jumping(
            clock, first, "migrate", "vm1", target.name, "--policy", "background", "--release", "--json"
        )
        elapsed = (time.monotonic() - began) * 1000
        assert told.status == 0, told
        guest.arrived(target)
        for name in ("downtime_ms", "resumed_after_ms", "total_ms"):
            assert 0 <= told.json[name] <= elapsed, told
        story = shelf.newest_of("vm1")
        assert story is not None
        assert (story.plan.id, story.plan.target.host) == (told.json["id"], target.name)
        assert all(0 <= entry.ms <= elapsed for entry in story.entries if isinstance(entry, Measured))
        times = [json.loads(line)["time"] for line in store.path_of(story.plan.id).read_text().splitlines()]
        # It did jump.
        assert max(times) - min(times) > HOUR
        await guest.is_well()
    report.note(report.Line("the controller's clock jumps by hours", "all", "done (0)", "nothing", "hostA"))
    await guest.pause()
    await guest.recheck()
    await fleet.finish(guest)


async def jumping(clock: Path, first: int, *words: str) -> Said:
    """A command whose clock begins at `first`, and then never stays what it is."""
    clock.write_text(str(first))
    process = await start(*words)
    ended = asyncio.ensure_future(end(process))
    for step in itertools.cycle((-HOUR, HOUR, 0)):
        await asyncio.wait({ended}, timeout=STEP_SECONDS)
        if ended.done():
            return await ended
        clock.write_text(str(first + step))
    raise AssertionError
