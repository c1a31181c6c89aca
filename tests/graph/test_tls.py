"""The files of a key folder: a group for key exchange that everybody knows, and the key of one migration."""

from __future__ import annotations

import subprocess

from qemu_esd.graph import tls


def dhparam(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", "dhparam", *words], input=tls.FFDHE2048, capture_output=True, check=False)


def test_the_group_is_sound_and_is_the_one_of_rfc_7919() -> None:
    checked = dhparam("-check", "-noout", "-text")
    assert checked.returncode == 0
    assert b"appear to be ok" in checked.stderr + checked.stdout
    assert b"ffdhe2048" in checked.stdout
    assert b"2048 bit" in checked.stdout


def test_openssl_writes_it_just_so() -> None:
    assert dhparam().stdout == tls.FFDHE2048


def test_the_key_file_is_one_line_of_user_and_key() -> None:
    assert tls.key_line("ab" * 32) == b"qemu:" + b"ab" * 32 + b"\n"
