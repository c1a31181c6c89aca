"""The key of a tunnel: let in for forwarding and nothing else, taken back without a trace, never at the user's cost."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from qemu_esd.errors import CommandFailedError
from qemu_esd.hosts import ssh_keys
from qemu_esd.hosts.local import LocalHost

HERE = LocalHost()
COMMENT = ssh_keys.comment_of("0badcafe")
OTHERS = "# mine\nssh-ed25519 AAAA one@home\n\nssh-rsa BBBB two words\n"


@pytest.fixture
def authorized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's authorized_keys would be."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".ssh/authorized_keys"


def write(authorized: Path, content: str) -> None:
    authorized.parent.mkdir(mode=0o700)
    authorized.write_text(content)


async def public_key(tmp_path: Path) -> str:
    return await ssh_keys.generate(HERE, str(tmp_path / "tunnel key"), COMMENT)


async def test_a_key_is_made_for_us_alone_and_anew_each_time(tmp_path: Path) -> None:
    first = await public_key(tmp_path)
    assert first.startswith("ssh-ed25519 ")
    assert first.endswith(f" {COMMENT}")
    assert stat.S_IMODE((tmp_path / "tunnel key").stat().st_mode) == 0o600
    assert await public_key(tmp_path) != first


async def test_the_key_may_forward_and_nothing_else(authorized: Path, tmp_path: Path) -> None:
    public = await public_key(tmp_path)
    await ssh_keys.allow(HERE, public, COMMENT)
    assert authorized.read_text() == f'restrict,port-forwarding,command="/bin/false" {public}\n'
    assert [stat.S_IMODE(path.stat().st_mode) for path in (authorized, authorized.parent)] == [0o600, 0o700]


@pytest.mark.parametrize("content", ["", OTHERS, OTHERS.rstrip("\n")], ids=["empty", "others", "no last newline"])
async def test_allowed_twice_is_one_line_and_withdrawn_twice_is_none(
    authorized: Path, tmp_path: Path, content: str
) -> None:
    write(authorized, content)
    public = await public_key(tmp_path)
    for _ in range(2):
        await ssh_keys.allow(HERE, public, COMMENT)
        lines = authorized.read_text().splitlines()
        assert lines[:-1] == content.splitlines()
        assert lines[-1].endswith(public)
    for _ in range(2):
        await ssh_keys.withdraw(HERE, COMMENT)
        assert authorized.read_text().splitlines() == content.splitlines()
    assert list(authorized.parent.iterdir()) == [authorized]


async def test_withdrawn_where_nobody_was_ever_let_in_is_fine(authorized: Path) -> None:
    await ssh_keys.withdraw(HERE, COMMENT)
    assert not authorized.parent.exists()


async def test_each_migration_withdraws_its_own(authorized: Path, tmp_path: Path) -> None:
    others = [ssh_keys.comment_of(id) for id in ("0badcaf0", "0badcafe0")]
    for comment in (*others, COMMENT):
        await ssh_keys.allow(HERE, f"ssh-ed25519 AAAA {comment}", comment)
    await ssh_keys.withdraw(HERE, COMMENT)
    assert [line.split()[-1] for line in authorized.read_text().splitlines()] == others


async def test_one_migration_does_not_take_anothers_line_for_its_own(authorized: Path) -> None:
    longer = ssh_keys.comment_of("0badcafe0")
    for comment in (longer, COMMENT):
        await ssh_keys.allow(HERE, f"ssh-ed25519 AAAA {comment}", comment)
    assert len(authorized.read_text().splitlines()) == 2


async def test_the_file_stays_the_users_own(authorized: Path, tmp_path: Path) -> None:
    """Its mode, its owner, and the link that it may be."""
    real = tmp_path / "keys of all machines"
    real.write_text(OTHERS)
    real.chmod(0o644)
    authorized.parent.mkdir()
    authorized.symlink_to(real)
    await ssh_keys.allow(HERE, await public_key(tmp_path), COMMENT)
    await ssh_keys.withdraw(HERE, COMMENT)
    assert authorized.is_symlink()
    assert (real.read_text(), stat.S_IMODE(real.stat().st_mode)) == (OTHERS, 0o644)


async def test_a_withdrawal_that_fails_costs_nobody_a_key(authorized: Path, tmp_path: Path) -> None:
    """The new content cannot be written (a full disk, say; here its place is taken by a folder)."""
    write(authorized, OTHERS)
    await ssh_keys.allow(HERE, await public_key(tmp_path), COMMENT)
    before = authorized.read_text()
    (authorized.parent / "authorized_keys.qemu-esd").mkdir()
    with pytest.raises(CommandFailedError):
        await ssh_keys.withdraw(HERE, COMMENT)
    assert authorized.read_text() == before
