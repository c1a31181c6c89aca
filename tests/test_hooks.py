"""Hooks: what they are told, and that none of them harms what they are told of."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from qemu_esd import hooks
from qemu_esd.errors import EsdError, RolledBackError, UnfinishedError
from qemu_esd.model.record import Measured, State
from qemu_esd.phases.context import Event
from tests.support.samples import plan

SUBJECT = hooks.subject_of(plan())


@pytest.fixture(autouse=True)
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for hooks, and the file into which those of `hook` write."""
    monkeypatch.setenv("QEMU_ESD_CONFIG", str(tmp_path))
    (tmp_path / "hooks").mkdir()
    return tmp_path / "told"


def hook(told: Path, name: str, script: str = "", mode: int = 0o755) -> None:
    path = told.parent / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script or f'cat >>{told}; echo >>{told}'}\n")
    path.chmod(mode)


def lines(told: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []


async def go_through(*events: Event, error: BaseException | None = None) -> list[Event]:
    """What the listener heard of a migration."""
    heard: list[Event] = []
    async with hooks.telling(SUBJECT, heard.append) as report:
        for event in events:
            report(event)
        if error:
            raise error
    return heard


async def test_each_event_in_order_with_what_it_is_about(told: Path) -> None:
    for event in hooks.HookEvent:
        hook(told, event.value)
    # The first one is the slowest.
    hook(told, "planned.d/10-more", f"sleep 0.2; cat >>{told}; echo >>{told}")
    passed: list[Event] = [State.PREPARING, Measured("x", 1.0), State.RUNNING, State.HANDED_OVER, State.SETTLED]
    assert await go_through(*passed) == passed
    said = lines(told)
    assert [line["event"] for line in said] == ["planned", "planned", "switched", "handed-over", "settled"]
    assert {key: said[0][key] for key in ("migration", "vm", "source", "target", "problem")} == {
        "migration": "0badcafe",
        "vm": "vm",
        "source": "a",
        "target": "b",
        "problem": None,
    }
    assert str(said[0]["time"]) <= str(said[-1]["time"])


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (RolledBackError("no room", hint="make some"), "failed"),
        (EsdError("no room", hint="make some"), "failed"),
        (UnfinishedError("no room", hint="make some"), "degraded"),
    ],
)
async def test_an_error_is_told_and_goes_on(told: Path, error: EsdError, event: str) -> None:
    hook(told, event)
    with pytest.raises(type(error)):
        await go_through(State.PREPARING, error=error)
    (line,) = lines(told)
    assert (line["event"], line["problem"], line["hint"]) == (event, "no room", "make some")


@pytest.mark.parametrize(("state", "count"), [(State.ROLLED_BACK, 1), (State.RUNNING, 0)])
async def test_an_interruption_fails_what_was_rolled_back(told: Path, state: State, count: int) -> None:
    hook(told, "failed")
    with pytest.raises(asyncio.CancelledError):
        await go_through(state, error=asyncio.CancelledError())
    assert len(lines(told)) == count


@pytest.mark.parametrize(
    ("script", "mode", "why"),
    [
        ("echo first >&2; echo gone wrong >&2; exit 3", 0o755, "status 3: gone wrong"),
        ("sleep 60; true", 0o755, "not done within 0.3 s"),
        ("true", 0o644, "ermission denied"),
        ("true", 0o777, "others may change it"),
    ],
)
async def test_one_that_fails_is_warned_of_and_harms_nothing(
    told: Path, script: str, mode: int, why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "HOOK_SECONDS", 0.3)
    hook(told, "planned", script, mode)
    hook(told, "switched")
    assert await go_through(State.PREPARING, State.RUNNING) == [State.PREPARING, State.RUNNING]
    assert [line["event"] for line in lines(told)] == ["switched"]
    said = capsys.readouterr().err
    assert "a hook failed" in said
    assert why in said


async def test_without_hooks_nothing_is_said(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (told.parent / "hooks").rmdir()
    await go_through(State.PREPARING)
    assert capsys.readouterr().err == ""
