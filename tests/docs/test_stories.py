"""Pages that tell a story, run from top to bottom as a reader would, on hosts of a lab that the story itself makes.

Those of libvirt take longer, and are run with ESD_DOCS=all.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.build import GuestImage
from qemu_esd.hosts import lab
from tests.conftest import end_movers
from tests.docs.pages import ROOT, blocks
from tests.support.labs import lab_name

thorough = pytest.mark.skipif(os.environ.get("ESD_DOCS") != "all", reason="takes half a minute; ESD_DOCS=all")

pytestmark = pytest.mark.lab


@pytest.fixture
def clone(guest_image: GuestImage) -> Iterator[Path]:
    """What a story needs of the checkout, where lab hosts see it, those with libvirt too."""
    with tempfile.TemporaryDirectory(prefix="esd-test-", dir="/var/opt") as name:
        folder = Path(name)
        for path in ("images", "examples"):
            shutil.copytree(ROOT / path, folder / path)
        (folder / ".cache/guest").mkdir(parents=True)
        for file in (guest_image.kernel, guest_image.initrd):
            shutil.copy(file, folder / ".cache/guest")
        yield folder


@pytest.fixture
def _own_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No lab, no guest and no process of the story's is left, whatever became of it."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root (namespaces and mounts)")
    monkeypatch.setenv("QEMU_ESD_LAB", f"/run/{lab_name()}-docs")
    monkeypatch.setenv("QEMU_ESD_LAB_DATA", f"/var/lib/qemu-esd-{lab_name()}-docs")
    monkeypatch.setenv("QEMU_ESD_STATE", str(tmp_path / "controller"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    yield
    end_movers()
    asyncio.run(lab.down())


# How many blocks of each are marked as not to be run; each says why.
@pytest.mark.parametrize(
    ("page", "left_out"),
    [
        ("README.md", 3),
        ("docs/quick-start.md", 7),
        ("docs/maintenance.md", 0),
        pytest.param("docs/libvirt.md", 0, marks=thorough),
        pytest.param("docs/shared.md", 0, marks=thorough),
    ],
)
@pytest.mark.usefixtures("_own_lab")
def test_it_goes_as_it_says(clone: Path, page: str, left_out: int) -> None:
    told = blocks(ROOT / page)
    assert [block.not_run is not None for block in told].count(True) == left_out
    # One shell for all of it, as a reader has one; it ends with the first command that fails.
    argv = ("bash", "-euxo", "pipefail", "-c", "".join(block.text for block in told if block.not_run is None))
    pipe, nothing, both = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT
    done = subprocess.run(argv, cwd=clone, stdin=nothing, stdout=pipe, stderr=both, text=True, check=False)
    assert done.returncode == 0, done.stdout
