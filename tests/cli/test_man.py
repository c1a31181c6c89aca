"""Manual pages: one per command, with all that its --help has, and troff has nothing to say against them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from qemu_esd.cli import man


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    man.main(folder / "man1")
    return folder / "man1"


def test_there_is_one_for_each_command(pages: Path) -> None:
    names = {page.name for page in pages.iterdir()}
    assert {"qemu-esd.1", "qemu-esd-migrate.1", "qemu-esd-vm.1", "qemu-esd-vm-run.1", "qemu-esd-qmp.1"} <= names
    overview = (pages / "qemu-esd.1").read_text()
    assert "qemu\\-esd\\-doctor (1)" in overview


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_troff_takes_them_and_they_say_what_help_says(pages: Path) -> None:
    for page in pages.iterdir():
        done = subprocess.run(
            ["groff", "-man", "-ww", "-Tutf8", "-P-cbou", str(page)], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        assert "EXIT STATUS" in done.stdout
        if page.name == "qemu-esd-migrate.1":
            words = " ".join(done.stdout.replace("\u2010\n", "").split())
            assert "--disk-policy DISK=P" in words
            assert "The target gives no space" in words
            assert "committed but not finished" in words


def test_words_that_troff_would_obey_stay_words() -> None:
    assert man._roff(".TH 'x' \\ -a …") == "\\&.TH \\(aqx\\(aq \\e \\-a \\[u2026]"
