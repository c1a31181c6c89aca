"""The words of `qemu-esd lab`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from qemu_esd.cli.lab import app
from qemu_esd.errors import RefusedError, UsageError
from qemu_esd.hosts import lab
from qemu_esd.hosts.lab.state import lab_data

pytestmark = pytest.mark.lab


def _say(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def _lines(*words: str) -> list[str]:
    result = _say(*words)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_a_whole_life(lab_root: Path) -> None:
    srv = lab_data(lab_root)
    assert _lines("status") == ["no lab is up"]
    assert _lines("up") == [
        f"hostA  10.213.0.11  started  /srv is {srv}/hostA/srv",
        f"hostB  10.213.0.12  started  /srv is {srv}/hostB/srv",
    ]
    assert _lines("up", "--hosts", "3") == [
        f"hostA  10.213.0.11  was up  /srv is {srv}/hostA/srv",
        f"hostB  10.213.0.12  was up  /srv is {srv}/hostB/srv",
        f"hostC  10.213.0.13  started  /srv is {srv}/hostC/srv",
    ]
    assert _lines("status")[:2] == ["the lab is up", f"hostA  10.213.0.11  up      /srv is {srv}/hostA/srv"]
    assert _lines("link", "hostA", "hostB", "--down", "--rate", "1gbit") == ["hostA -- hostB  down  119.2 MiB/s"]
    assert _lines("link", "hostA", "hostB") == ["hostA -- hostB  down  119.2 MiB/s"]
    assert _lines("link", "hostA", "hostB", "--up", "--rate", "none") == ["hostA -- hostB  up"]
    assert _lines("down") == ["stopped hostA, hostB, hostC; nothing is left"]
    assert _lines("down") == ["no lab is up"]


def test_status_as_json(lab_root: Path) -> None:
    _say("up", "--hosts", "2")
    told = json.loads(_say("status", "--json").stdout)
    assert told["state"] == "up"
    assert [(host["name"], host["state"]) for host in told["hosts"]] == [("hostA", "up"), ("hostB", "up")]
    assert told["links"] == [{"one": "hostA", "other": "hostB", "up": True, "rate": None, "delay": None}]


def test_exec_passes_words_output_and_status_on(lab_root: Path) -> None:
    _say("up", "--hosts", "1")
    done = _say(
        "exec",
        "hostA",
        "--",
        "sh",
        "-c",
        'printf "%s|" "$@"; echo oops >&2; exit 7',
        "sh",
        "a b",
        "$(id)",
        "-x",
        "",
    )
    assert (done.exit_code, done.stdout, done.stderr) == (7, "a b|$(id)|-x||", "oops\n")
    assert _say("exec", "hostA", "--", "sh", "-c", "kill -TERM $$").exit_code == 128 + 15
    assert _say("exec", "hostA", "--", "no-such-program").exit_code == 127


def test_exec_passes_bytes_on(lab_root: Path) -> None:
    _say("up", "--hosts", "1")
    script = "from qemu_esd.cli.lab import app; app()"
    argv = [sys.executable, "-c", script, "exec", "hostA", "--", "printf", r"\377\000\n"]
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"\xff\x00\n"


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (("up", "--hosts", "0"), UsageError, "1 to 26"),
        (("exec", "hostA", "--", "true"), RefusedError, "no host 'hostA'"),
        (("link", "hostA", "hostB", "--down"), RefusedError, "not up"),
        (("link", "hostA", "hostB", "--down", "--up"), UsageError, "either"),
        (("link", "hostA", "hostB", "--rate", "fast"), UsageError, "not a size"),
        (("link", "hostA", "hostB", "--rate", "0"), UsageError, "more than zero"),
        (("link", "hostA", "hostB", "--delay", "10"), UsageError, "not a delay"),
    ],
)
def test_bad_words(lab_root: Path, words: tuple[str, ...], error: type[Exception], said: str) -> None:
    result = _say(*words)
    assert isinstance(result.exception, error)
    assert said in str(result.exception)
    assert lab.status().state is lab.LabState.NONE
