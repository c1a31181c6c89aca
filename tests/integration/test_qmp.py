"""`qemu-esd qmp`, with a guest that stays, one that has moved, and the path handler that serves it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qemu_esd import api
from qemu_esd.model.policy import Handler
from tests.integration.support.commands import end, say, start
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet

pytestmark = pytest.mark.lab


async def test_story(fleet: Fleet, tmp_path: Path) -> None:
    guest = await fleet.idle(Drive("vda", 7))
    record = tmp_path / "record"
    told = await say("qmp", "vm1", "query-status", "--trace", str(record))
    assert (told.status, told.json["status"]) == (0, "running")
    assert [json.loads(line)["from"] for line in record.read_text().splitlines()].count("us") > 1
    # Nothing is under way: the guest is its owner's.
    assert (await say("qmp", "vm1", "stop")).json == {}
    assert (await say("qmp", "vm1", '{"execute": "cont"}')).json == {}

    told = await say("qmp", "vm1", "query-named-block-nodes", "flat=perhaps")
    assert (told.status, told.out) == (2, "")
    assert "it is on or off; it takes: query-named-block-nodes [flat=on|off]" in told.err
    told = await say("qmp", "vm1", "device_del", "id=nosuch")
    assert (told.status, told.out) == (1, "")
    assert "it takes: device_del id=TEXT" in told.err
    assert "Traceback" not in told.err
    told = await say("qmp", "vm1", "--events", "STOPP")
    assert (told.status, "did you mean STOP" in told.err) == (2, True)
    assert (await say("qmp", "vm1", "--events", "--count", "0")).status == 2
    assert (await say("qmp", "vm1")).status == 2

    listening = await start("qmp", "vm1", "--events", "--count", "2", "STOP", "RESUME")
    assert listening.stderr is not None
    assert (await listening.stderr.readline()).startswith(b"events of vm1")
    async with api.open_guest("vm1") as station:
        await station.qemu.execute("stop")
        await station.qemu.execute("cont")
    events = [json.loads(line) for line in (await end(listening)).out.splitlines()]
    assert [event["event"] for event in events] == ["STOP", "RESUME"]
    assert events[0]["time"] < events[1]["time"]

    await guest.migrate(fleet.b, Handler.REDIRECT)

    assert (await say("qmp", "vm1", "query-status")).json["status"] == "running"
    refused = await say("qmp", "vm1", "stop")
    assert (refused.status, refused.out) == (3, "")
    assert "vm1 still reads from hostA; stop may change something" in refused.err
    assert (await say("qmp", "vm1", "stop", "--write")).json == {}
    assert (await say("qmp", "vm1", "query-status")).json["status"] == "paused"
    assert (await say("qmp", "vm1", "cont", "--write", "--host", "hostB")).json == {}
    (export,) = (await say("qmp", "vm1@hostA", "query-block-exports")).json
    refused = await say("qmp", "vm1@hostA", "block-export-del", f"id={export['id']}")
    assert (refused.status, "through this path handler" in refused.err) == (3, True)
    assert (await say("qmp", "vm1@hostA", "query-block-exports")).json == [export]
    for words in (("vm1@hostC",), ("nosuch",), ("vm1", "--host", "hostC")):
        told = await say("qmp", *words, "query-block-exports")
        assert (told.status, "try: " in told.err) == (3, True)
    await fleet.finish(guest)
