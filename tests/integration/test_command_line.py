"""The commands for real: what they print where, how they end, what a signal leads to, and who goes on with a move."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path

import pytest

from images.console import STATUS, parse
from images.pattern import MIB
from qemu_esd import mover_process
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.journal import registry
from qemu_esd.model.host import guest_sockets
from qemu_esd.model.policy import Handler
from qemu_esd.qmp.session import open_session
from tests.bench import steps
from tests.integration.support.commands import end, say, start
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import PATHS, Guest
from tests.integration.support.links import slow
from tests.integration.support.machine import ended

pytestmark = pytest.mark.lab

DISK_FIELDS = [
    "disk", "suid", "handler", "write_policy", "virtual_bytes", "local_bytes", "remote_bytes", "needs_source",
]  # fmt: skip
FIELDS = [
    "id", "vm", "source", "target", "committed", "state", "downtime_ms", "resumed_after_ms", "total_ms", "disks",
]  # fmt: skip
# Bytes per second, slow enough that a signal comes in the middle: of the memory (a few MiB), of the disks.
SLOW_FOR_MEMORY, SLOW_FOR_DISKS = MIB // 4, 2 * MIB


async def _await_line(process: asyncio.subprocess.Process, word: str) -> None:
    """Return when a line on stderr begins with `word`."""
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while not (line := await process.stderr.readline()).decode().startswith(word):
            assert line, f"it ended, and never said {word!r}"


async def _finish(fleet: Fleet, guest: Guest) -> None:
    """Stop and forget by the commands, and nothing is left on the hosts or here."""
    assert (await say("vm", "stop", "--force", guest.name)).status == 0
    assert (await say("vm", "forget", guest.name)).status == 0
    fleet.check_empty()
    assert mover_process.find(guest.name) is None
    assert registry.find(guest.name) is None


async def test_where_the_time_goes(fleet: Fleet, tmp_path: Path) -> None:
    guest = await fleet.idle(Drive("vda", 7, size=8 * MIB))
    file = tmp_path / "trace.json"

    moved = await say("--trace", str(file), "migrate", guest.name, "hostB", "--policy", "on-demand", "--json")

    assert moved.status == 0, moved.err
    figures = steps.read(json.loads(file.read_text())["traceEvents"])
    assert list(figures) == list(steps.WAYS)
    parts = [figures[way]["took"] for way in steps.WAYS[1:]]
    assert all(parts)
    assert sum(parts) == pytest.approx(figures[steps.ALL]["took"], abs=1)
    assert figures["prepare"]["ssh"] > 0 < figures["switchover"]["qmp"]
    # Keys are handed over on stdin, and stay there.
    assert not re.search(r"\b[0-9a-f]{64}\b", file.read_text())


async def test_the_words_of_a_whole_life(fleet: Fleet) -> None:
    vda = Drive("vda", 7, size=8 * MIB)
    guest = await fleet.idle(vda)
    assert (await say("vm", "list", "--host", "hostA")).out.splitlines()[1].split() == [
        "vm1", "hostA", str(fleet.a.run("pidof", "qemu-system-x86_64").stdout.strip()), "qemu-esd",
    ]  # fmt: skip

    needless = await say("policy", "vm1", "vda", "miss")
    assert (needless.status, needless.out) == (3, "")
    assert "no policy is needed" in needless.err
    assert (await say("policy", "vm1", "vdb", "miss")).status == 2

    moved = await say("migrate", "vm1", "hostB", "--policy", "redirect", "--json")

    assert moved.status == 0, moved.err
    assert list(moved.json) == FIELDS
    assert list(moved.json["disks"][0]) == DISK_FIELDS
    assert [moved.json[key] for key in ("vm", "source", "target", "committed", "state")] == [
        "vm1", "hostA", "hostB", True, "handed-over",
    ]  # fmt: skip
    assert 0 < moved.json["downtime_ms"] < moved.json["resumed_after_ms"] <= moved.json["total_ms"]
    for word in ("prepared after", "memory moved after", "switched over", "handed over after"):
        assert word in moved.err
    seen = (await say("status", "--json")).json["vms"]
    assert len(seen) == 1
    assert {key: seen[0][key] for key in FIELDS} == moved.json
    assert [seen[0][key] for key in ("host", "link", "job")] == ["hostB", "up", None]
    picture = (await say("map", "vm1", "vda")).out.splitlines()
    assert picture[0] == "vda on hostB: redirect, 8.0 MiB"
    assert set(picture[1].split()[-1]) == {"░"}
    refused = await say("release", "vm1")
    assert (refused.status, refused.err) == (
        3,
        "error: hostB: vm1 still reads from hostA\n  try: qemu-esd settle vm1\n",
    )

    # A controller that saw the guest on its former host last finds it by the record there.
    registry.remember("vm1", "hostA")
    assert (await say("status", "--json", "vm1")).json["vms"][0]["host"] == "hostB"
    registry.remember("vm1", "hostB")

    settled = await say("settle", "vm1", "--json")
    assert settled.status == 0, settled.err
    assert (settled.json["state"], settled.json["disks"][0]["remote_bytes"]) == ("settled", 0)
    assert (await say("release", "vm1", "--json")).json["state"] == "released"
    assert not fleet.a.real(vda.path).exists()
    await _finish(fleet, guest)


async def test_a_dry_run_touches_nothing(fleet: Fleet) -> None:
    guest = await fleet.idle(Drive("vda", 7, size=8 * MIB))
    before = [machine.snapshot() for machine in (fleet.a, fleet.b)]

    good = await say("migrate", "vm1", "hostB", "--policy", "miss", "--dry-run", "--json")
    bad = await say("migrate", "vm1", "hostB", "--policy", "miss", "--no-local-space", "--dry-run", "--json")
    words = await say("migrate", "vm1", "hostB", "--policy", "background", "--dry-run")

    assert (good.status, good.json["problems"], good.json["plan"]["disks"][0]["disk"]) == (0, [], "vda")
    assert bad.status == 3
    assert [problem["host"] for problem in bad.json["problems"]] == ["hostB"]
    assert "copy-on-read" in words.out
    assert [machine.snapshot() for machine in (fleet.a, fleet.b)] == before
    await _finish(fleet, guest)


async def test_a_signal_before_the_commit_rolls_back(fleet: Fleet) -> None:
    guest = await fleet.idle(Drive("vda", 7, size=8 * MIB))
    async with slow("hostA", "hostB", SLOW_FOR_MEMORY):
        moving = await start("migrate", "vm1", "hostB", "--policy", "background", "--json")
        await _await_line(moving, "prepared after")
        moving.send_signal(signal.SIGINT)
        told = await end(moving)
    assert told.status == 1
    assert told.err.endswith("error: rolled back, vm1 runs on hostA as before\n")
    assert (told.json["committed"], told.json["state"], told.json["downtime_ms"]) == (False, "rolled-back", None)
    seen = (await say("status", "vm1", "--json")).json["vms"][0]
    assert (seen["host"], seen["state"], seen["run_state"]) == ("hostA", "local", "running")
    assert fleet.b.leftovers() == []
    await _finish(fleet, guest)


async def test_a_move_goes_on_without_us_and_another_command_takes_over(fleet: Fleet) -> None:
    # Large enough for all that is said while it moves.
    vda = Drive("vda", 7, size=128 * MIB)
    guest = await fleet.idle(vda)
    async with slow("hostA", "hostB", SLOW_FOR_DISKS):
        moving = await start("migrate", "vm1", "hostB", "--policy", "background", "--json")
        await _await_line(moving, "moving the data")
        moving.send_signal(signal.SIGTERM)
        stopped = await end(moving)
        assert stopped.status == 4
        assert stopped.err.endswith("\n  try: qemu-esd settle vm1\n")
        assert (stopped.json["committed"], stopped.json["state"]) == (True, "settling")
        assert "qemu-esd settle vm1" in (await say("status")).out

        assert (await say("policy", "vm1", "background")).status == 0
        first = mover_process.find("vm1")
        assert first is not None
        # To look at it does not disturb it, to try out a migration does only for a moment.
        assert (await say("map", "vm1")).status == 0
        assert (await say("migrate", "vm1", "hostA", "--policy", "redirect", "--dry-run")).status == 0
        second = mover_process.find("vm1")
        assert second is not None
        assert (second.migration, second.pid != first.pid) == (first.migration, True)
    settled = await say("settle", "vm1", "--release", "--json")
    assert settled.status == 0, settled.err
    assert settled.json["state"] == "released"
    assert not fleet.a.real(vda.path).exists()
    await _finish(fleet, guest)


async def test_detached_it_comes_to_its_end_by_itself(fleet: Fleet) -> None:
    guest = await fleet.idle(Drive("vda", 7, size=64 * MIB))
    async with slow("hostA", "hostB", SLOW_FOR_DISKS):
        moved = await say("migrate", "vm1", "hostB", "--policy", "background", "--detach", "--release", "--json")
        assert moved.status == 0, moved.err
        assert moved.json["state"] == "handed-over"
        mover = mover_process.find("vm1")
        assert mover is not None
        busy = await say("status", "vm1", "--json")
        assert busy.json["vms"][0]["state"] == "settling"
    await ended(mover.pid)
    seen = (await say("status", "vm1", "--json")).json["vms"][0]
    assert seen["state"] == "released", mover.log.read_text()
    await _finish(fleet, guest)


async def test_what_the_console_said_on_every_host(fleet: Fleet) -> None:
    guest = await fleet.boot(Drive("vda", 7, size=8 * MIB))
    await guest.migrate(fleet.b, Handler.BACKGROUND)
    await guest.status()
    said = (await say("vm", "log", "vm1")).out
    assert said.count("esd-load ready") == 1
    lines = [line for line in map(parse, said.splitlines()) if line]
    numbers = [line.number("n") for line in lines if line.word == STATUS]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 1
    assert (await say("release", "vm1")).status == 0
    await _finish(fleet, guest)


async def test_a_paused_guest_is_let_run(fleet: Fleet) -> None:
    guest = await fleet.idle(Drive("vda", 7, size=8 * MIB))
    async with open_hosts() as hosts:
        monitor = guest_sockets(PATHS, "vm1").user
        async with open_session(await hosts.get("hostA"), monitor, "vm1") as qemu:
            await qemu.execute("stop")
    refused = await say("migrate", "vm1", "hostB", "--policy", "miss")
    assert (refused.status, refused.out) == (3, "")
    assert "qemu-esd vm cont vm1" in refused.err
    assert (await say("vm", "cont", "vm1")).status == 0
    assert (await say("status", "vm1", "--json")).json["vms"][0]["run_state"] == "running"
    await _finish(fleet, guest)
