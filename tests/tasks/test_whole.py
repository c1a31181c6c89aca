"""tests/whole.py: it ends as pytest does, and finds what a test leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[Path]:
    """A suite of one file. What its tests leave is ended and removed."""
    yield tmp_path / "test_suite.py"
    for file in tmp_path.glob("*.pid"):
        os.kill(int(file.read_text()), signal.SIGKILL)


def run(suite: Path, source: str, *before: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`before`: a program that runs it. Its folders are in this test's, so that what it leaves is removed with them."""
    suite.write_text(source)
    words = ("--rootdir", str(suite.parent), "--numprocesses=1", str(suite))
    argv = (*before, sys.executable, "-m", "tests.whole", *words)
    variables = {**os.environ, "TMPDIR": str(suite.parent), **environment}
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT, env=variables)


def test_a_tidy_suite_ends_as_pytest_does(suite: Path) -> None:
    done = run(suite, "def test_it(tmp_path): (tmp_path / 'file').touch()")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "nothing is left of the tests")
    failed = run(suite, "def test_it(): assert False")
    assert (failed.returncode, failed.stdout.splitlines()[-1]) == (1, "nothing is left of the tests")
    assert run(suite, "").returncode == 5


def test_a_process_that_is_left_is_named(suite: Path) -> None:
    done = run(
        suite,
        f"""
import subprocess
def test_it():
    left = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL, start_new_session=True)
    open({str(suite.parent / "left.pid")!r}, "w").write(str(left.pid))
""",
    )
    pid = (suite.parent / "left.pid").read_text()
    assert done.returncode == 1
    assert f"process {pid}: sleep 1000" in done.stdout


def test_files_outside_of_tmp_path_are_named(suite: Path) -> None:
    done = run(suite, "import tempfile\ndef test_it(): tempfile.mkdtemp(prefix='forgotten-')")
    assert done.returncode == 1
    assert "/forgotten-" in done.stdout


def test_the_labs_and_guests_of_the_user_are_out_of_reach(suite: Path) -> None:
    source = """
import os
from qemu_esd.hosts.lab.state import lab_data, lab_root
from qemu_esd.journal.store import home
def test_it():
    own = os.path.dirname(os.environ["TMPDIR"])
    assert all(str(path).startswith(own) for path in (lab_root(), home()))
    assert str(lab_data(lab_root())) not in ("/var/lib/qemu-esd-lab", "/theirs")
"""
    done = run(suite, source, QEMU_ESD_LAB="/theirs", QEMU_ESD_LAB_DATA="/theirs", QEMU_ESD_STATE="/theirs")
    assert done.returncode == 0, done.stdout


def test_a_mount_that_is_left_is_named(suite: Path) -> None:
    """In a mount namespace of our own, which takes the mount with it."""
    if os.geteuid() != 0:
        pytest.skip("takes root, to mount")
    source = """
import subprocess
def test_it(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
"""
    done = run(suite, source, "unshare", "--mount")
    assert done.returncode == 1
    assert f"none {suite.parent}/esd-" in done.stdout


def test_a_signal_lets_fixtures_take_down_what_they_have_put_up(suite: Path) -> None:
    source = """
import os, signal, subprocess, pytest
@pytest.fixture
def server():
    with subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL) as server:
        yield
        server.kill()
def test_it(server):
    whole = open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[1]
    os.kill(int(whole), signal.SIGTERM)
    signal.pause()
"""
    done = run(suite, source)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (2, "nothing is left of the tests")
