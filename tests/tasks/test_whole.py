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


def run(suite: Path, source: str) -> subprocess.CompletedProcess[str]:
    suite.write_text(source)
    argv = (sys.executable, "-m", "tests.whole", "--rootdir", str(suite.parent), str(suite))
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)


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
    assert "/tmp/forgotten-" in done.stdout


def test_the_labs_and_guests_of_the_user_are_out_of_reach(suite: Path) -> None:
    source = """
from qemu_esd.hosts.lab.state import lab_data, lab_root
from qemu_esd.journal.store import home
import os
def test_it():
    assert all(str(path).startswith(os.path.dirname(os.environ["TMPDIR"])) for path in (lab_root(), home()))
    assert str(lab_data(lab_root())) not in ("/var/lib/qemu-esd-lab", "/theirs")
"""
    suite.write_text(source)
    argv = (sys.executable, "-m", "tests.whole", "--rootdir", str(suite.parent), str(suite))
    theirs = {**os.environ, "QEMU_ESD_LAB": "/theirs", "QEMU_ESD_LAB_DATA": "/theirs", "QEMU_ESD_STATE": "/theirs"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT, env=theirs)
    assert done.returncode == 0, done.stdout


def test_a_mount_that_is_left_is_named(suite: Path, tmp_path: Path) -> None:
    """In a mount namespace of our own, which takes the mount with it."""
    if os.geteuid() != 0:
        pytest.skip("takes root, to mount")
    suite.write_text("""
import subprocess
def test_it(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
""")
    argv = ("unshare", "--mount", sys.executable, "-m", "tests.whole", "--rootdir", str(tmp_path), str(suite))
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "none /tmp/" in done.stdout or "none " + os.environ.get("TMPDIR", "/tmp") in done.stdout
