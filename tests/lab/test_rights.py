"""Without the rights or the programs: one clear error, and nothing is left behind."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_esd.hosts import lab
from qemu_esd.hosts.lab.process import SBIN
from tests.lab.tools import on, processes, traces

pytestmark = pytest.mark.lab

_CHECKOUT = Path(__file__).parents[2]
# Everything is imported before the rights are given up: the checkout may be readable by root only.
_SCRIPT = """
import asyncio, os, sys
from qemu_esd.errors import EsdError
from qemu_esd.hosts import lab
if sys.argv[1] == "nobody":
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
actions = {"up": lambda: asyncio.run(lab.up()), "down": lambda: asyncio.run(lab.down()),
           "status": lab.status, "find": lambda: lab.find("hostA"), "find other": lambda: lab.find("example.org")}
try:
    print(actions[sys.argv[2]]())
except EsdError as error:
    print(error.exit_status, error, error.hint, sep=" | ")
"""


def _argv(who: str, action: str) -> list[str]:
    return [sys.executable, "-c", _SCRIPT, who, action]


def _run(who: str, action: str, *wrapper: str) -> str:
    argv = [*wrapper, *_argv(who, action)]
    done = subprocess.run(argv, cwd=_CHECKOUT, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize("action", ["up", "down"])
def test_up_and_down_take_root(lab_root: Path, action: str) -> None:
    assert _run("nobody", action) == "3 | the lab makes namespaces and mounts, which takes root | run it with sudo"
    assert traces(lab_root) == set()


@pytest.fixture
def reachable_lab_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A root that everybody may look for: pytest's own folders are for root only."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("QEMU_ESD_LAB", f"{folder}/lab")
        monkeypatch.delenv("QEMU_ESD_LAB_DATA", raising=False)
        yield Path(folder, "lab")
        asyncio.run(lab.down())


def test_a_lab_of_root_is_not_for_others(reachable_lab_root: Path) -> None:
    _run("root", "up")
    for action in ("status", "find"):
        assert _run("nobody", action) == "3 | the lab belongs to root | run it with sudo"
    assert _run("nobody", "find other") == "None"


def test_without_a_lab_anybody_may_ask(reachable_lab_root: Path) -> None:
    assert _run("nobody", "find") == "None"
    assert "LabState.NONE" in _run("nobody", "status")


@pytest.mark.parametrize("capability", ["sys_admin", "net_admin"])
def test_root_without_the_rights_of_root(lab_root: Path, capability: str) -> None:
    said = _run("root", "up", "setpriv", f"--bounding-set=-{capability}")
    assert "Operation not permitted" in said
    assert traces(lab_root) == set()


def test_a_machine_whose_mounts_are_shared_sees_none_of_ours(lab_root: Path, tmp_path: Path) -> None:
    # As under systemd: whatever is mounted in a copy of such a tree appears in the tree as well.
    look = f"cat /proc/self/mounts >{tmp_path}"
    script = f'mount --make-rshared / && {look}/before && "$@" && {look}/after'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", *_argv("root", "up")]
    subprocess.run(argv, cwd=_CHECKOUT, check=True, timeout=60)
    assert len(processes(lab_root)) == 3
    before = (tmp_path / "before").read_text()
    assert before
    assert (tmp_path / "after").read_text() == before


def test_a_machine_whose_root_account_is_locked(lab_root: Path, tmp_path: Path) -> None:
    layers = f"lowerdir=/etc,upperdir={tmp_path}/m/upper,workdir={tmp_path}/m/work"
    script = f"""
    mkdir {tmp_path}/m && mount -t tmpfs none {tmp_path}/m && mkdir {tmp_path}/m/upper {tmp_path}/m/work &&
    sed 's/^root:[^:]*:/root:!:/' /etc/shadow >{tmp_path}/m/upper/shadow &&
    mount -t overlay -o {layers} none /etc && grep -q '^root:!:' /etc/shadow && exec "$@"
    """
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", *_argv("root", "up")]
    subprocess.run(argv, cwd=_CHECKOUT, check=True, timeout=60)
    host = lab.find("hostA")
    assert host is not None
    assert asyncio.run(on(host, "hostname")) == "hostA\n"


@pytest.mark.parametrize(("program", "package"), [("sshd", "openssh-server"), ("ip", "iproute2"), ("tc", "iproute2")])
def test_a_missing_program_is_named_with_its_package(lab_root: Path, program: str, package: str) -> None:
    path = shutil.which(program, path=SBIN)
    script = 'mount --bind /dev/null "$(readlink -f "$0")"; exec "$@"'
    said = _run("root", "up", "unshare", "--mount", "sh", "-c", script, str(path))
    assert said == f"3 | the lab needs {program} | apt-get install {package}"
    assert traces(lab_root) == set()
