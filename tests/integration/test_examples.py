"""The examples of docs/api.md, each run as a user would; and what machines are told meanwhile: hooks, metrics, logs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.hooks import HookEvent
from tests.integration.support.commands import Said, end, say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parent.parent.parent


async def example(name: str, *words: str) -> Said:
    pipe = asyncio.subprocess.PIPE
    argv = (sys.executable, str(ROOT / "examples" / f"{name}.py"), *words)
    return await end(await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe, env=os.environ))


def hooks_into(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which a hook writes each event; one that fails is there too."""
    monkeypatch.setenv("QEMU_ESD_CONFIG", str(folder))
    (folder / "hooks/switched.d").mkdir(parents=True)
    scripts: dict[str, str] = dict.fromkeys(HookEvent, f"cat >>{folder}/told; echo >>{folder}/told")
    for name, script in {**scripts, "switched.d/fails": "exit 1"}.items():
        (folder / "hooks" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "hooks" / name).chmod(0o755)
    return folder / "told"


async def test_all(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guest, hooked = await fleet.idle(Drive("vda", 7, size=8 * MIB)), hooks_into(tmp_path / "config", monkeypatch)

    told = await example("evacuate", "hostA", "hostB", "0")
    assert (told.status, "not confirmed" in told.err) == (3, True)
    assert not hooked.exists()
    told = await example("evacuate", "hostA", "hostB", "10")
    assert told.status == 0
    assert "vm1 is released, on hostB" in told.out
    # The hook that fails, and nothing else.
    assert told.err.count("\n") == 1
    assert "switched.d/fails" in told.err
    events = [json.loads(line) for line in hooked.read_text().splitlines()]
    assert [event["event"] for event in events] == ["planned", "switched", "handed-over", "settled"]
    assert {(event["vm"], event["source"], event["target"]) for event in events} == {("vm1", "hostA", "hostB")}
    (tmp_path / "config/hooks/switched.d/fails").unlink()
    guest.arrived(fleet.b)

    told = await example("ask")
    assert (told.status, told.err) == (0, "")
    assert "vm1 on hostB: released, link none" in told.out
    assert " reads\n" in told.out

    told = await example("move", "vm1", "hostC", "on-demand")
    assert (told.status, told.err) == (0, "")
    assert "now handed-over" in told.out
    assert "vm1 runs on hostC" in told.out
    guest.arrived(fleet.c)
    refused = await example("move", "vm1", "hostC")
    assert (refused.status, "is there already" in refused.err) == (3, True)

    assert (await say("metrics", "--textfile", str(tmp_path / "esd.prom"))).status == 0
    samples = [
        sample
        for family in text_string_to_metric_families((tmp_path / "esd.prom").read_text())
        for sample in family.samples
    ]
    values = {sample.name: sample.value for sample in samples if sample.labels.get("vm") in ("vm1", None)}
    assert (values["qemu_esd_link_up"], values["qemu_esd_downtime_seconds_count"]) == (1, 2)
    assert values["qemu_esd_device_remote_bytes"] > 0
    assert values["qemu_esd_link_received_bytes_total"] > 0

    told = await say("--log-format", "json", "-vv", "settle", "vm1")
    assert told.status == 0
    lines = [json.loads(line) for line in told.err.splitlines()]
    assert {(line["vm"], line["level"]) for line in lines if "migration" in line} == {("vm1", "debug")}
    assert {line["host"] for line in lines if line["event"] == "QMP"} >= {"hostC"}
    assert json.loads(hooked.read_text().splitlines()[-1])["event"] == "settled"
    await fleet.finish(guest)


def test_all_of_them_are_run_and_told_of() -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert names == {"move", "evacuate", "ask"}
    told = (ROOT / "docs/api.md").read_text()
    assert all(f"examples/{name}.py" in told for name in names)


def test_what_the_page_names_is_there() -> None:
    named = set(re.findall(r"^\| .*?`(\w+)\(", (ROOT / "docs/api.md").read_text(), flags=re.MULTILINE))
    assert {"migrate", "try_out", "open_peer"} <= named <= set(api.__all__)
    assert all(hasattr(api, name) for name in api.__all__)
