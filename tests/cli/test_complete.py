"""What shells offer: by typer's own protocol, and in a real bash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_esd.cli.complete import ssh_aliases
from qemu_esd.journal import registry, store
from qemu_esd.model.record import Entered, State
from tests.support.samples import plan

PROGRAM = Path(sys.executable).with_name("qemu-esd")
SSH = """
Host web1 web2
    HostName 192.0.2.1
Host *.example !other
host=db
Include more/*.conf
"""


@pytest.fixture(autouse=True)
def _known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two guests, one of which a migration took from host a to b and was broken off; an ssh configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    registry.remember("vm1", "a")
    registry.remember("vm1", "b")
    registry.remember("web", "a")
    with store.begin(plan(vm="vm1")) as journal:
        journal.append(Entered(State.SWITCHING))
    (tmp_path / ".ssh/more").mkdir(parents=True)
    (tmp_path / ".ssh/config").write_text(SSH)
    (tmp_path / ".ssh/more/one.conf").write_text("Host inner\nInclude ../config\n")


def bash(*words: str) -> list[str]:
    """What `qemu-esd WORDS` has for its last word."""
    line = {
        "_QEMU_ESD_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("qemu-esd", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(PROGRAM, env=os.environ | line, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("migrate", "v"), ["vm1"]),
        (("migrate", "vm1", "web"), ["web1", "web2"]),
        (("migrate", "vm1", "lo"), ["local"]),
        (("migrate", "vm1", "b", "--policy", "re"), ["redirect"]),
        (("migrate", "vm1", "b", "--from", "in"), ["inner"]),
        (("migrate", "vm1", "b", "--disk-policy", "root=m"), ["root=miss"]),
        (("policy", "vm1", "ro"), ["root"]),
        (("policy", "vm1", "root", "m"), ["miss"]),
        (("policy", "vm1", "root", "ro"), []),
        (("policy", "web", "ro"), []),
        (("settle", "w"), ["web"]),
        (("status", "v"), ["vm1"]),
        (("map", "vm1", "r"), ["root"]),
        (("vm", "stop", "v"), ["vm1"]),
        (("qmp", "vm1@"), ["vm1@a"]),
        (("doctor", "a", "b"), ["b"]),
        (("host", "restore", "d"), ["db"]),
        (("resume", "0"), ["0badcafe"]),
        (("report", "0"), ["0badcafe"]),
        (("graph", "v"), ["vm1"]),
        (("rollback", "vm1", "--force-lost", "a"), ["a"]),
        (("doct",), ["doctor"]),
    ],
)
def test_offered(words: tuple[str, ...], offered: list[str]) -> None:
    assert bash(*words) == offered


def test_a_damaged_file_offers_nothing_and_says_nothing(tmp_path: Path) -> None:
    for file in (tmp_path / "controller/guests").iterdir():
        file.write_text("{")
    assert bash("settle", "") == []


def test_other_shells() -> None:
    for shell, more in (("zsh", {}), ("fish", {"_TYPER_COMPLETE_FISH_ACTION": "get-args"})):
        line = {"_QEMU_ESD_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "qemu-esd settle v", **more}
        done = subprocess.run(PROGRAM, env=os.environ | line, capture_output=True, text=True, check=True)
        assert "vm1" in done.stdout
        assert "web" not in done.stdout


def test_in_a_real_bash() -> None:
    script = """
        eval "$(_QEMU_ESD_COMPLETE=source_bash "$0")"
        function qemu-esd { :; }
        COMP_WORDS=("$0" settle v) COMP_CWORD=2
        _qemu_esd_completion "$0"
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-c", script, str(PROGRAM)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "vm1"


def test_ssh_aliases(tmp_path: Path) -> None:
    # One that includes itself comes to an end.
    assert list(dict.fromkeys(ssh_aliases(tmp_path / ".ssh/config"))) == ["web1", "web2", "db", "inner"]
    assert list(ssh_aliases(tmp_path / "nowhere")) == []
