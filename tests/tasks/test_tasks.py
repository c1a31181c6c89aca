"""tasks.py: what it lists, what it finds missing, and that nothing is done twice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tasks

SCRIPT = Path(tasks.__file__)
# A package without dependencies that builds itself: pip needs no network for it.
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "little"
version = "1"
"""
BACKEND = """
import zipfile
def build_editable(directory, config_settings=None, metadata_directory=None):
    about = "Metadata-Version: 2.1\\nName: little\\nVersion: 1\\nProvides-Extra: dev\\n"
    with zipfile.ZipFile(f"{directory}/little-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("little.py", "")
        wheel.writestr("little-1.dist-info/METADATA", about)
        wheel.writestr("little-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("little-1.dist-info/RECORD", "")
    return "little-1-py3-none-any.whl"
"""


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """As on a fresh machine: a Python without anything installed."""
    argv = (sys.executable, "-I", "-S", str(SCRIPT), *words)
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **more})


def test_alone_it_lists_its_tasks_a_line_each() -> None:
    listed = run()
    assert (listed.returncode, listed.stderr) == (0, "")
    lines = listed.stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [
        *("setup", "demo", "test", "check", "format", "images", "lab", "bench", "faults", "man", "docs", "clean"),
    ]
    assert all(len(line.split()) > 3 and len(line) < 120 for line in lines)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("tset",), "error: there is no task 'tset'\n  try: python3 tasks.py test\n"),
        (("zzz",), "error: there is no task 'zzz'\n  try: python3 tasks.py\n"),
        (("clean", "--all"), "error: clean takes no arguments: --all\n  try: python3 tasks.py clean\n"),
    ],
)
def test_what_is_no_task_is_refused(words: tuple[str, ...], told: str) -> None:
    refused = run(*words)
    assert (refused.returncode, refused.stderr, refused.stdout) == (2, told, "")


def test_ci_runs_exactly_the_task_test() -> None:
    script = SCRIPT.parent / ".ci/run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["exec python3 tasks.py test"]


# ---- Debian packages


def test_missing_packages_are_those_that_dpkg_does_not_have() -> None:
    asked = ("dpkg", "qemu-esd-no-such-package", "gcc")
    assert tasks.missing_packages(asked) == ("qemu-esd-no-such-package",)


def test_nothing_missing_is_nothing_done(capfd: pytest.CaptureFixture[str]) -> None:
    tasks.install_packages(("dpkg", "gcc"))
    assert capfd.readouterr() == ("", "")


def test_apt_knows_what_can_be_installed() -> None:
    assert tasks.apt_knows("dpkg")
    assert not tasks.apt_knows("dpkg", "qemu-esd-no-such-package")


def programs(folder: Path, *names: str) -> str:
    """A PATH with these programs only."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return str(folder)


def test_without_root_and_sudo_the_command_is_named(tmp_path: Path) -> None:
    """As user nobody, with dpkg-query but without sudo."""
    if os.geteuid() != 0:
        pytest.skip("takes root, to become somebody without rights")
    source = f"""
import os, sys
sys.path.insert(0, {str(SCRIPT.parent)!r})
import tasks
tasks.ROOT = tasks.Path("/nonexistent")  # the clone may be where only root gets
os.chdir({programs(tmp_path / "bin", "dpkg-query")!r})
os.environ["PATH"] = "."
os.setgid(65534); os.setuid(65534)
sys.argv = ["tasks.py", "demo"]
try:
    tasks.install_packages(("qemu-esd-no-such-package",))
except tasks.TaskError as error:
    print(error, "|", error.hint)
"""
    told = subprocess.run((sys.executable, "-B", "-c", source), capture_output=True, text=True, check=False, cwd="/")
    assert "apt-get --quiet --yes" in told.stdout, told.stderr
    assert "there is no sudo" in told.stdout
    assert told.stdout.endswith("| as root: python3 tasks.py demo\n")


def test_where_there_is_no_dpkg_the_packages_are_named(tmp_path: Path) -> None:
    source = SCRIPT.read_text().replace('"/usr/sbin:/sbin"', '""').replace(":/usr/sbin:/sbin", "")
    (tmp_path / "tasks.py").write_text(source)
    argv = (sys.executable, "-I", str(tmp_path / "tasks.py"), "setup")
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.startswith("error: this is no Debian\n  try: install what these packages hold: qemu-system-x86 ")


# ---- .venv


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of something little, in a folder with a blank."""
    root = tmp_path / "a checkout"
    root.mkdir()
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "backend.py").write_text(BACKEND)
    return root


BOTH = ["making .venv", "installing qemu-esd and its Python packages into .venv (a minute, the first time)"]


def test_venv_is_made_once_and_again_when_its_inputs_change(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (checkout / "backend.py").write_text("raise SystemExit('no backend today')")
    with pytest.raises(tasks.TaskError) as caught:
        tasks.make_venv(checkout)
    assert "mend what pip names" in caught.value.hint
    assert said(capfd) == BOTH
    assert not tasks.venv_is_current(checkout)

    (checkout / "backend.py").write_text(BACKEND)
    tasks.make_venv(checkout)
    assert said(capfd) == BOTH[1:]
    assert installed(checkout) == "1"

    tasks.make_venv(checkout)
    assert capfd.readouterr() == ("", "")

    with (checkout / "pyproject.toml").open("a") as file:
        file.write('description = "changed"\n')
    tasks.make_venv(checkout)
    assert said(capfd) == BOTH[1:]

    # Its scripts still work there: they run the Python of the place that they were made for.
    copy = shutil.copytree(checkout, checkout.with_name("copy"), symlinks=True)
    tasks.make_venv(copy)
    assert said(capfd) == BOTH
    assert installed(copy) == "1"

    remove_python(copy / ".venv")
    assert not tasks.venv_is_current(copy)
    assert not tasks.venv_works(copy / ".venv")


def remove_python(venv: Path) -> None:
    (venv / "bin/python").unlink()
    (venv / "bin/python").symlink_to("/nowhere/python3.11")


def said(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return re.findall(r"^tasks: (.*)$", capfd.readouterr().out, re.MULTILINE)


def installed(checkout: Path) -> str:
    asks = "import importlib.metadata as it; print(it.version('little'))"
    argv = (checkout / ".venv/bin/python", "-c", asks)
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
