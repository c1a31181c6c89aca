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


def test_aes_128_is_what_two_ends_agree_upon_first() -> None:
    asked = ("gnutls-cli", "--list", "--priority", f"{tls.PRIORITY}:+ECDHE-PSK:+DHE-PSK:+PSK")
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout

    # In the order of preference; the three are all that both ends need to know one of.
    assert "Ciphers: AES-128-GCM, CHACHA20-POLY1305, AES-256-GCM\n" in said
