"""The files of a key folder for QEMU's `tls-creds-psk`: the key of one migration, and a group for key exchange.

Without the second file each server end makes a group of its own when it starts, which takes seconds on a busy host.
This one is ffdhe2048 of RFC 7919, public and the same for everybody; `openssl dhparam -check -text` names it.
"""

from __future__ import annotations

KEY_FILE = "keys.psk"
GROUP_FILE = "dh-params.pem"

# AES-128 first: the ciphers that GnuTLS likes best do not go with a pre-shared key (their hash is another), so that
# ChaCha20 was agreed upon, which takes twice the CPU where a CPU knows AES. The others stay for who has not that one.
PRIORITY = "NORMAL:-CIPHER-ALL:+AES-128-GCM:+CHACHA20-POLY1305:+AES-256-GCM"

FFDHE2048 = b"""\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


def credentials(role: str, folder: str) -> dict[str, str]:
    """What a `tls-creds-psk` is made with, for one end ("client" or "server")."""
    return {"endpoint": role, "dir": folder, "priority": PRIORITY}


# Where no key can be: who only asks whether there is TLS makes nothing by it.
NO_FOLDER = "/dev/null"


def looked_for_key(refusal: str) -> bool:
    """Whether a QEMU that was asked for credentials in NO_FOLDER came to look for the key there.

    One that was built without TLS knows the kind of object all the same, and refuses it before that.
    """
    return f"{NO_FOLDER}/{KEY_FILE}" in refusal


def key_line(key: str) -> bytes:
    """The content of KEY_FILE; `key` is 64 hexadecimal digits. "qemu" is the user name that QEMU assumes."""
    return f"qemu:{key}\n".encode()
