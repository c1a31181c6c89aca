"""The words of a policy: read handlers and write policies."""

from __future__ import annotations

import difflib
from enum import StrEnum

from qemu_esd.errors import UsageError


class Handler(StrEnum):
    """What happens to a read, on the target, of data that is only on the source."""

    MISS = "miss"
    REDIRECT = "redirect"
    BACKGROUND = "background"
    ON_DEMAND = "on-demand"

    @property
    def keeps_reads(self) -> bool:
        """True where data that was read from the source stays on the target (a copy-on-read node does it)."""
        return self in (Handler.BACKGROUND, Handler.ON_DEMAND)

    @property
    def needs_source(self) -> bool:
        """True where a read of absent data is answered by the source."""
        return self is not Handler.MISS


class ReadErrors(StrEnum):
    """What a guest's disk does when a read fails: QEMU's rerror, fixed when the device is made."""

    STOP = "stop"
    REPORT = "report"


def parse_read_errors(text: str) -> ReadErrors:
    """Raises UsageError."""
    try:
        return ReadErrors(text)
    except ValueError:
        what = f"--read-errors {text!r} is neither stop nor report"
        raise UsageError(what, hint="stop pauses the guest, report gives it the error") from None


def parse_handler(text: str) -> Handler:
    """The handler called `text`; raises UsageError that suggests the nearest name."""
    try:
        return Handler(text)
    except ValueError:
        names = [handler.value for handler in Handler]
        near = difflib.get_close_matches(text, names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"
        raise UsageError(f"there is no policy {text!r}", hint=hint) from None


def check_write_policy(text: str) -> None:
    """Raises UsageError unless `text` is the write policy that exists."""
    if text in ("through", "back"):
        raise UsageError(f"the write policy {text!r} is not there yet", hint="use --write-policy local")
    if text != "local":
        raise UsageError(f"there is no write policy {text!r}", hint="choose local")
