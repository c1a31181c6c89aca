"""The folder for forwarded sockets: private, gone in the end, and swept where its process was killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from qemu_esd.hosts.scratch import scratch_folder

SCRIPT = """
import os, signal, socket
from qemu_esd.hosts.scratch import scratch_folder
with scratch_folder() as folder:
    socket.socket(socket.AF_UNIX).bind(str(folder / "1.sock"))
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_private_and_goes(own_tmp: Path) -> None:
    with scratch_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(folder / "1.sock"))
        with scratch_folder() as other:
            assert sorted(own_tmp.iterdir()) == sorted([folder, other])
    assert list(own_tmp.iterdir()) == []


def test_what_a_killed_process_left_is_swept(own_tmp: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [str(path) for path in own_tmp.iterdir()] == [killed.stdout.strip()]
    with scratch_folder() as folder:
        assert list(own_tmp.iterdir()) == [folder]


def test_one_that_another_process_sweeps_before_it_is_locked(own_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = tempfile.mkdtemp, list[Path]()

    def make_and_lose_the_first(prefix: str) -> str:
        made.append(Path(make(prefix=prefix)))
        if len(made) == 1:
            made[0].rmdir()
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose_the_first)
    with scratch_folder() as folder:
        assert [folder] == made[1:] == list(own_tmp.iterdir())


def test_others_keep_theirs(own_tmp: Path) -> None:
    (own_tmp / "qemu-esd-sockets-file").touch()
    (own_tmp / "qemu-esd-sockets-link").symlink_to("/")
    for name in ("qemu-esd-mine", "qemu-esd-sockets-mine"):
        (own_tmp / name).mkdir()
        (own_tmp / name / "work.sock").write_text("no socket")
    before = sorted(own_tmp.rglob("*"))
    with scratch_folder():
        pass
    assert sorted(own_tmp.rglob("*")) == before
