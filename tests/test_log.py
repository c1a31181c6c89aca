"""What is told beside the result, and when: by how much the user wants to be told."""

from __future__ import annotations

from collections.abc import Iterator

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
