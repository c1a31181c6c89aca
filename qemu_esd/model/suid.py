"""The storage unit identifier: one name for a device on every host."""

from __future__ import annotations

import hashlib
import re

# virtio-blk, NVMe and IDE carry 20 characters of serial number.
MAX_LENGTH = 20
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def suid_of(vm: str, disk: str, *, serial: str | None = None, wwn: str | None = None) -> str:
    """The SUID of an existing disk: its WWN, its serial, else a stable id of VM and disk.

    At most 20 characters of [A-Za-z0-9_.-], so that it can be a serial number, a file name and a part of a node name.
    """
    for text in (wwn, serial):
        if text:
            return text if len(text) <= MAX_LENGTH and _PLAIN.fullmatch(text) else _digest(text)
    return _digest(f"{vm}\0{disk}")


def _digest(text: str) -> str:
    return "esd" + hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
