"""qemu-img on a host: overlays that fail closed, and questions about images that may be in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_esd.errors import CommandFailedError
from qemu_esd.hosts import qemu_img
from qemu_esd.hosts.local import LocalHost
from tests.support.qemu import blockdevs, create, storage_daemon

HERE = LocalHost()
ODD = ("two words", "a,b", "it's", "-x", "json:{}", "nbd:x", "new\nline")


@pytest.mark.parametrize(
    ("name", "size"), [*((name, 1 << 20) for name in ODD), *(("plain", size) for size in (512, 1536, 1 << 43))]
)
async def test_an_overlay_has_the_size_and_the_options_it_was_given(tmp_path: Path, name: str, size: int) -> None:
    path = str(tmp_path / name)
    await qemu_img.create_overlay(HERE, path, size, {"cluster_size": "128k", "extended_l2": "on"})
    told = await qemu_img.info(HERE, path, "qcow2")
    assert told["virtual-size"] == size
    assert told["cluster-size"] == 128 << 10
    assert told["format-specific"]["data"]["extended-l2"]
    assert told["full-backing-filename"] == qemu_img.UNOPENABLE
    assert Path(path).stat().st_mode & 0o777 == 0o600


async def test_an_overlay_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CommandFailedError, match="qemu-img"):
        await qemu_img.create_overlay(HERE, str(tmp_path / "no/folder"), 1 << 20, {})


@pytest.mark.parametrize("format", ["raw", "qcow2"])
async def test_the_size_is_what_a_guest_sees(tmp_path: Path, format: str) -> None:
    path = create(tmp_path / "disk", format, "3M")
    assert await qemu_img.virtual_size(HERE, str(path), format) == 3 << 20


async def test_an_image_of_another_format_is_refused(tmp_path: Path) -> None:
    path = create(tmp_path / "disk", "raw")
    with pytest.raises(CommandFailedError, match="qcow2"):
        await qemu_img.virtual_size(HERE, str(path), "qcow2")


async def test_a_format_is_never_probed(tmp_path: Path) -> None:
    """A guest can write any header into its raw disk; it is as large as its file all the same."""
    path = create(tmp_path / "disk", "qcow2", "1G")
    assert await qemu_img.virtual_size(HERE, str(path), "raw") < 1 << 20


async def test_an_image_in_use_can_be_asked_about(tmp_path: Path) -> None:
    path = create(tmp_path / "disk", "qcow2")
    node = {"driver": "qcow2", "node-name": "disk", "file": {"driver": "file", "filename": str(path)}}
    async with storage_daemon(*blockdevs([node])):
        assert await qemu_img.virtual_size(HERE, str(path), "qcow2") == 8 << 20
