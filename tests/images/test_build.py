"""Building the guest: same inputs, same bytes; nothing is done twice; what is missing has a name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from images import build as module
from images.build import BuildError, GuestImage, Inputs, build

ROOT = Path(__file__).parents[2]


@pytest.fixture
def caches(tmp_path: Path, guest_image: GuestImage) -> Callable[[str], Path]:
    """Folders to build in, with the kernel's package where /boot has none and it was downloaded for the tests."""
    package = guest_image.kernel.parent / "packages"

    def make(name: str) -> Path:
        (tmp_path / name).mkdir()
        if package.exists():
            (tmp_path / name / "packages").symlink_to(package)
        return tmp_path / name

    return make


def run(cache: Path, *, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = None if path is None else {"PATH": path}
    argv = [sys.executable, "-m", "images.build", str(cache)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def test_same_inputs_same_bytes_and_nothing_done_twice(caches: Callable[[str], Path]) -> None:
    first, second = caches("first"), caches("second, with a blank")
    before = {path.name for path in first.iterdir()}
    assert (run(first).returncode, run(second).returncode) == (0, 0)
    for name in ("kernel", "initrd"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    built = (first / "initrd").stat()
    again = run(first)
    assert "up to date" in again.stderr
    assert again.stdout.split("\n")[:2] == [str(first / "kernel"), str(first / "initrd")]
    assert (first / "initrd").stat().st_ino == built.st_ino
    made = {path.name for path in first.iterdir()} - before
    assert made == {"initrd", "inputs.sha256", "kernel", "lock"}


def test_a_build_that_was_cut_short_is_done_again(caches: Callable[[str], Path]) -> None:
    cache = caches("cache")
    image = build(cache)
    whole = image.initrd.read_bytes()
    (cache / "inputs.sha256").unlink()
    image.initrd.write_bytes(b"half")
    assert build(cache).initrd.read_bytes() == whole


def test_every_input_counts(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("kernel", "busybox", "main.c", "virtio.ko")}
    for name, path in files.items():
        path.write_text(name)
    inputs = Inputs(files["kernel"], files["busybox"], (files["main.c"],), (files["virtio.ko"],), ())
    digests = {inputs.digest(), replace(inputs, modules=()).digest()}
    for path in files.values():
        path.write_text("other")
        digests.add(inputs.digest())
    assert len(digests) == 2 + len(files)


@pytest.mark.parametrize(("tools", "package"), [(("gcc", "strip"), "busybox-static"), (("busybox",), "gcc libc6-dev")])
def test_a_missing_package_is_named(
    tmp_path: Path, caches: Callable[[str], Path], tools: tuple[str, ...], package: str
) -> None:
    for tool in tools:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    failed = run(caches("cache"), path=str(tmp_path))
    assert failed.returncode == 1
    assert f"hint: apt-get install {package}" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "cache" / "initrd").exists()


def test_without_a_kernel_and_without_apt_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_find_kernel", lambda root: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError) as caught:
        build(tmp_path / "cache")
    assert caught.value.hint == "apt-get install linux-image-cloud-amd64"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]
