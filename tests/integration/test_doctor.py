"""`qemu-esd doctor` and the forecast of a dry run, on hosts that are well, and on ones that are not."""

from __future__ import annotations

from typing import Any

import pytest

from images.pattern import MIB
from qemu_esd.hosts import accel
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.model.policy import Handler
from tests.integration.support.commands import Said, say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import PATHS

pytestmark = pytest.mark.lab

STATE = "/var/lib/qemu-esd"


def problems(told: Said) -> list[dict[str, Any]]:
    assert told.status in (0, 3), told.err
    found = [finding for finding in told.json["findings"] if finding["level"] == "problem"]
    assert told.status == (3 if found else 0)
    assert all(finding["why"] and finding["hint"] for finding in found)
    return found


async def test_story(fleet: Fleet) -> None:
    guest = await fleet.idle(Drive("vda", 7, size=8 * MIB))
    async with open_hosts() as hosts:
        # Remembered from now on: a probe that has to be killed takes five seconds.
        await accel.choose(await hosts.get("hostB"), PATHS)
    before = fleet.snapshot()

    told = await say("doctor", "hostA", "hostB", "--json")

    assert problems(told) == []
    ways = {one["host"]: one["what"] for one in told.json["findings"] if one["check"] == "link"}
    assert set(ways) == {"hostA -> hostB", "hostB -> hostA"}
    assert {one["host"] for one in told.json["findings"] if one["check"] in ("machine", "cpu")} == {"hostA - hostB"}
    told = await say("migrate", "vm1", "hostB", "--policy", "background", "--dry-run", "--json")
    assert (told.status, told.json["problems"]) == (0, [])
    forecast = told.json["forecast"]
    assert (forecast["memory"], forecast["downtimes_known"]) == (told.json["plan"]["memory_bytes"], 0)
    assert forecast["rate"] > MIB
    (disk,) = forecast["disks"]
    assert 0 < disk["later_least"] == disk["later_most"] <= 8 * MIB < disk["worst"]
    await fleet.unchanged(before)

    # A folder that others can read, and a port that somebody has.
    fleet.a.run("chmod", "755", STATE)
    taken = fleet.b.run("sh", "-c", "ss -Htln | awk '{print $4}' | sed -n 's/.*://p' | head -n 1").stdout.strip()
    told = await say("doctor", "hostA", "hostB", "--ports", f"{taken}-{taken}", "--json")
    fleet.a.run("chmod", "700", STATE)
    found = {(one["host"], one["check"]): one for one in problems(told)}
    assert found["hostA", "state"]["hint"] == f"chmod 700 {STATE}"
    assert ("hostB", "ports") in found
    assert f"port {taken} of hostB cannot be reached" in found["hostB -> hostA", "link"]["what"]

    moved = await guest.migrate(fleet.b, Handler.REDIRECT)
    unit = f"path-{moved.id}"
    fleet.a.run("sh", "-c", f"kill -KILL -$(cat {STATE}/unit/{unit}/supervisor)")
    told = await say("doctor", "hostA", "nosuchhost", "--json")
    left, unknown = problems(told)
    assert (left["check"], left["hint"]) == ("leftovers", "qemu-esd host restore hostA")
    assert unit in left["what"]
    assert (unknown["check"], unknown["hint"]) == ("ssh", "ssh -- nosuchhost true")
    assert (await say("host", "restore", "hostA")).status == 0
    await fleet.finish(guest)
