"""What is seen of a migration while it goes on, and what is told of it afterwards: status, its watch, the report."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import report
from qemu_esd.journal import trail
from qemu_esd.model.trail import Snapshot
from tests.integration.support.commands import end, say, start
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.links import slow
from tests.integration.support.machine import kill

pytestmark = pytest.mark.lab

SIZE = 24 * MIB


async def line_of(process: asyncio.subprocess.Process, *words: str) -> str:
    """The next line on stdout that has all of these words."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while line := (await process.stdout.readline()).decode():
            if all(word in line for word in words):
                return line
    raise AssertionError(f"it ended, and never said {words}")


async def test_seen_and_told(fleet: Fleet, tmp_path: Path) -> None:
    guest = await fleet.idle(Drive("vda", 7, size=SIZE))
    watch = await start("status", "--watch")
    await line_of(watch, "vm1 on hostA", "never moved")
    async with slow("hostA", "hostB", 4 * MIB):
        moving = asyncio.ensure_future(say("migrate", "vm1", "hostB", "--policy", "background", "--json"))
        await line_of(watch, "vm1 on hostB", "settling", "link up")
        seen = (await say("status", "vm1", "--json")).json["vms"][0]
        moved = await moving
    assert moved.status == 0, moved.err
    guest.arrived(fleet.b)
    await line_of(watch, "vm1 on hostB", "settled", "next: release")
    watch.send_signal(signal.SIGINT)
    assert (await end(watch)).status == 0

    id = moved.json["id"]
    assert (seen["journal"]["id"], seen["journal"]["at_work"]) == (id, True)
    assert [(each["host"], each["role"]) for each in seen["hosts"]] == [("hostB", "runs"), ("hostA", "serves")]
    assert seen["hosts"][1]["address"].startswith(f"{fleet.a.address}:")

    told = report.of("vm1")
    assert [phase.name for phase in told.phases] == ["plan", "prepare", "memory", "switchover", "handover", "settle"]
    assert told.samples["RAM"][-1][1].done == told.samples["RAM"][-1][1].total > 0
    assert told.samples["vda"][-1][1].done == told.samples["vda"][-1][1].total == SIZE
    assert report.rates(told.samples["vda"])
    snapshots = [each.mark for each in trail.read(id) if isinstance(each.mark, Snapshot)]
    assert [(one.moment, one.remote_bytes == 0) for one in snapshots] == [("arrived", False), ("end", True)]
    assert set(snapshots[0].cells) <= set("lmr")
    assert told.versions is not None and set(told.versions.qemu) == {"hostA", "hostB"}

    file = tmp_path / "page.html"
    assert (await say("report", "vm1", "--output", str(file))).err == f"written to {file}\n"
    page = file.read_text()
    for words in ("vm1: hostA to hostB", "Afterwards", "when the guest had arrived", "QEMU on hostB"):
        assert words in page, words

    # What has gone wrong is remembered as well: nobody can migrate to where it is.
    async with slow("hostA", "hostB", 256 << 10):
        process = await start("migrate", "vm1", "hostA", "--policy", "redirect")
        assert process.stderr is not None
        while not (await process.stderr.readline()).startswith(b"prepared"):
            pass
        kill(fleet.a.qemu("vm1").pid)
        failed = await end(process)
    assert failed.status == 1, failed.err
    seen = (await say("status", "vm1", "--json")).json["vms"][0]
    assert (seen["host"], seen["journal"]["state"]) == ("hostB", "rolled-back")
    assert len(seen["journal"]["errors"]) == 1
    assert "vm1 is on hostB as before" in report.of("vm1").said[-1].text
    assert "the last errors:" in (await say("status", "vm1")).out
    await fleet.finish(guest)
