"""What is told beside the result, and when: by how much the user wants to be told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_esd import log


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    yield
    log.configure(0)


@pytest.mark.parametrize(
    ("verbosity", "told"),
    [(0, ["warned"]), (1, ["said", "warned"]), (2, ["asked", "said", "warned", "took"])],
)
def test_what_is_told(verbosity: int, told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(verbosity)
    log.logger.debug("asked")
    log.logger.info("said", host="a")
    log.logger.warning("warned")
    with log.timed("took", host="b"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert [next(word for word in ("asked", "said", "warned", "took") if word in line) for line in lines] == told
    assert all(("host" in line) == ("said" in line or "took" in line) for line in lines)


def test_how_long_it_took_is_told_of_what_fails_too(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(2)
    with pytest.raises(ZeroDivisionError), log.timed("took"):
        _ = 1 / 0
    assert "ms" in capsys.readouterr().err


def test_lines_as_json_have_what_is_bound(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(1, log.Format.JSON)
    log.rebind(phase="nobody's")
    with log.bound(migration="0badcafe", vm="vm1"):
        log.logger.info("begun")
        log.rebind(phase="preparing", host="a")
        log.logger.info("asked", host="b", path=Path("/x"))
    log.logger.info("over")
    begun, asked, over = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (begun["event"], begun["level"], begun["migration"], begun["vm"]) == ("begun", "info", "0badcafe", "vm1")
    assert "phase" not in begun
    assert (asked["phase"], asked["host"], asked["path"]) == ("preparing", "b", "/x")
    assert begun["timestamp"].endswith("Z")
    assert set(over) == {"event", "level", "timestamp"}


async def test_what_a_task_finds_out_holds_for_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    async def work() -> None:
        log.rebind(phase="switching")

    log.configure(1, log.Format.JSON)
    with log.bound(vm="vm1"):
        await asyncio.create_task(work())
        log.logger.info("after")
    assert json.loads(capsys.readouterr().err)["phase"] == "switching"
