"""What the user asks of `device create`."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from qemu_esd.errors import UsageError
from qemu_esd.model.disk import Image
from qemu_esd.model.policy import Handler
from qemu_esd.model.request import DEFAULT_PORTS
from qemu_esd.model.suid import MAX_LENGTH

_SUID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_LENGTH - 1}}}")
# What the kernel takes for none.
_NO_ID = (1 << 32) - 1
POLICIES = (Handler.ON_DEMAND, Handler.BACKGROUND, Handler.REDIRECT)


@dataclass(frozen=True)
class DeviceRequest:
    """A device to be made. `chain`: images that are there, on the first of `hosts`, top first; none: a new raw image of
    `size` bytes."""

    suid: str
    hosts: tuple[str, ...]
    size: int
    chain: tuple[Image, ...] = ()
    policy: Handler = Handler.BACKGROUND
    owner: str = ""
    ports: range = DEFAULT_PORTS


def check_suid(suid: str) -> str:
    """Raises UsageError for what cannot be a serial number, a file name and a part of a node's name."""
    if not _SUID.fullmatch(suid):
        hint = f"use 1 to {MAX_LENGTH} of A-Z a-z 0-9 _ . - and begin with a letter or a digit"
        raise UsageError(f"{suid!r} cannot be the SUID of a device", hint=hint)
    return suid


def check_policy(handler: Handler) -> Handler:
    if handler not in POLICIES:
        raise UsageError(f"a device has no policy {handler}", hint=f"choose one of {', '.join(POLICIES)}")
    return handler


def check_owner(text: str) -> str:
    """Raises UsageError."""
    ids = re.fullmatch(r"([0-9]{1,10}):([0-9]{1,10})", text)
    if text and not (ids and all(int(id) < _NO_ID for id in ids.groups())):
        raise UsageError(f"{text!r} is not a user and a group in numbers", hint="--owner 64055:64055")
    return text


def new_suid() -> str:
    return f"esd{secrets.token_hex(8)}"
