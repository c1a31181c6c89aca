"""Files on a host: whole or not at all, for us alone, whatever they are called."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from qemu_esd.errors import CommandFailedError
from qemu_esd.hosts import files
from qemu_esd.hosts.base import Completed, Host
from qemu_esd.hosts.local import LocalHost

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAMES = (
    "plain",
    "two words",
    "it's",
    'say "x"',
    "new\nline",
    "-rf",
    "$HOME",
    "`id`",
    "*",
    "é",
    "a\\b",
    ".hidden",
    "a,b",
)
ODD = pytest.mark.parametrize("name", NAMES)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@ODD
async def test_a_file_is_written_read_and_removed_whatever_it_is_called(host: Host, tmp_path: Path, name: str) -> None:
    path = tmp_path / name / name
    assert await files.read(host, str(path)) is None
    await files.write(host, str(path), b"one\0\xff\n")
    assert await files.read(host, str(path)) == path.read_bytes() == b"one\0\xff\n"
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert await files.existing(host, str(path), str(tmp_path / "not there")) == {str(path)}
    for _ in range(2):
        await files.remove(host, str(path))
        assert not path.exists()
    for _ in range(2):
        await files.remove_tree(host, str(path.parent))
        assert list(tmp_path.iterdir()) == []


class CutOff(LocalHost):
    """What it is given ends early, as when the process that gives it is killed."""

    async def attempt(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        return await super().attempt(argv, stdin[: len(stdin) // 2])


async def test_what_is_cut_off_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "record"
    await files.write(LocalHost(), str(path), b"the old content")
    for data in (b"x", b"the new content"):
        with pytest.raises(CommandFailedError, match="cut off"):
            await files.write(CutOff(), str(path), data)
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"the old content", [path])


@ODD
async def test_a_name_may_begin_with_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Relative, so that nothing stands before it."""
    monkeypatch.chdir(tmp_path)
    here = LocalHost()
    await files.write(here, name, b"x")
    assert await files.read(here, name) == b"x"
    assert await files.existing(here, name) == {name}
    await files.rename(here, name, f"{name}.aside")
    assert list(tmp_path.iterdir()) == [tmp_path / f"{name}.aside"]
    await files.remove(here, f"{name}.aside")
    await files.make_folders(here, name)
    assert await files.listing(here, name) == ()
    await files.remove_tree(here, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"x" * (1 << 20)], ids=["empty", "large"])
async def test_any_content_is_written(host: Host, tmp_path: Path, data: bytes) -> None:
    await files.write(host, str(tmp_path / "f"), data)
    assert await files.read(host, str(tmp_path / "f")) == (tmp_path / "f").read_bytes() == data


async def test_a_new_content_replaces_the_old_and_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(0o666)
    await files.write(LocalHost(), str(path), b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


async def test_whoever_reads_meanwhile_sees_the_old_or_the_new(tmp_path: Path) -> None:
    """The file is replaced by another one: what somebody has open stays whole."""
    path = tmp_path / "f"
    path.write_text("old")
    with path.open() as held:
        await files.write(LocalHost(), str(path), b"new")
        assert held.read() == "old"


async def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    """The new content cannot be written: its place is taken by a folder."""
    path = tmp_path / "f"
    path.write_text("old")
    (tmp_path / "f.new").mkdir()
    with pytest.raises(CommandFailedError):
        await files.write(LocalHost(), str(path), b"new")
    assert path.read_text() == "old"


async def test_folders_are_ours_alone(host: Host, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o777)
    (tmp_path / "there").chmod(0o777)
    await files.make_folders(host, *(str(tmp_path / name) for name in ("a/b", "there", "-x")))
    assert {mode(tmp_path / name) for name in ("a", "a/b", "there", "-x")} == {0o700}


@ODD
async def test_a_rename_may_be_done_twice(tmp_path: Path, name: str) -> None:
    old, new = tmp_path / name, tmp_path / f"{name}.moved"
    old.write_text("x")
    for _ in range(2):
        await files.rename(LocalHost(), str(old), str(new))
        assert (old.exists(), new.read_text()) == (False, "x")


async def test_a_rename_takes_nobodys_name(host: Host, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("ours")
    (tmp_path / "new").write_text("theirs")
    with pytest.raises(CommandFailedError, match="there already"):
        await files.rename(host, str(tmp_path / "old"), str(tmp_path / "new"))
    assert [(tmp_path / name).read_text() for name in ("old", "new")] == ["ours", "theirs"]


async def test_a_rename_of_what_was_never_there_fails(tmp_path: Path) -> None:
    with pytest.raises(CommandFailedError):
        await files.rename(LocalHost(), str(tmp_path / "old"), str(tmp_path / "new"))


async def test_a_folder_is_listed_whatever_is_in_it(host: Host, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).touch()
    assert await files.listing(host, str(tmp_path)) == tuple(sorted(name for name in NAMES if name[0] != "."))
    assert await files.listing(host, str(tmp_path / "not there")) == ()
    (tmp_path / "empty").mkdir()
    assert await files.listing(host, str(tmp_path / "empty")) == ()


async def test_which_of_many_exist(host: Host, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).touch()
    wanted = {str(tmp_path / name) for name in NAMES}
    assert await files.existing(host, *wanted, str(tmp_path / "other")) == wanted
    assert await files.existing(host) == frozenset()


async def test_many_are_read_at_once_and_what_is_empty_or_cannot_be_read_is_there(host: Host, tmp_path: Path) -> None:
    texts = {"plain": b'{"a": 1}', "with space\n": b"two\nlines\n", "-e": b"\xff", "empty": b""}
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text)
    (tmp_path / "folder").mkdir()
    found = await files.read_all(host, [f"{tmp_path}/{name}" for name in ("missing", *texts, "folder", "gone")])
    assert found == {f"{tmp_path}/{name}": text for name, text in {**texts, "folder": b""}.items()}


async def test_a_tree_is_removed_with_what_is_in_it_and_nothing_behind_its_links(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "tree/a/b").mkdir(parents=True)
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")
    await files.remove_tree(LocalHost(), str(tmp_path / "tree"))
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "file"]


async def test_free_space_is_that_of_the_file_system_that_a_folder_will_be_on(host: Host, tmp_path: Path) -> None:
    system = os.statvfs(tmp_path)
    free = await files.free_bytes(host, str(tmp_path / "not" / "there yet"))
    assert free == pytest.approx(system.f_bavail * system.f_frsize, abs=1 << 30)
    assert await files.free_bytes(host, "/proc") == 0


async def test_one_file_of_each_folder(host: Host, tmp_path: Path) -> None:
    assert await files.read_each(host, str(tmp_path / "not there"), "record") == {}
    seen = [name for name in NAMES if not name.startswith(".")]
    for name in (*seen, "without", "gone", "unreadable"):
        (tmp_path / name).mkdir()
    for name in seen:
        (tmp_path / name / "record").write_text(f"{name}: %s \\n\n")
        (tmp_path / name / "other").write_text("not asked for")
    # Removed between two looks at it; and one that no program can read.
    (tmp_path / "gone" / "record").symlink_to("nowhere")
    (tmp_path / "unreadable" / "record").mkdir()
    told = {name: f"{name}: %s \\n".encode() for name in seen}
    assert await files.read_each(host, str(tmp_path), "record") == {**told, "unreadable": b""}
