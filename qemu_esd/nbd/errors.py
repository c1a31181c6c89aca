"""What can go wrong with an NBD server, sorted by what the caller can do about it.

`NbdError`, `NbdUnsupportedError` and `NbdMapTooLargeError` concern one request, and the connection goes
on. Every `NbdConnectionError` means that this connection is of no more use.
"""

from __future__ import annotations

import os

from qemu_esd.errors import EsdError


class NbdClientError(EsdError):
    """Base of all errors of this package. `what` was asked or going on, `detail` is the reason."""

    def __init__(self, *, what: str, detail: str = "") -> None:
        super().__init__(what)
        self.detail = detail

    def __str__(self) -> str:
        return f"{super().__str__()}: {self.detail}" if self.detail else super().__str__()


class NbdError(NbdClientError):
    """The server answered one request with an error.

    `errno` is one of the protocol's (the same numbers as Linux); `offset` and `length` are bytes, as asked.
    """

    def __init__(self, errno: int, offset: int, length: int, *, what: str = "NBD request", detail: str = "") -> None:
        reason = f"{os.strerror(errno)} ({detail})" if detail else os.strerror(errno)
        super().__init__(what=f"{what} of {length} bytes at {offset}", detail=reason)
        self.errno = errno
        self.offset = offset
        self.length = length


class NbdUnsupportedError(NbdClientError):
    """The export does not offer the command that was asked for."""


class NbdMapTooLargeError(NbdClientError):
    """The disk is too fragmented for one map in memory; ask for a smaller range of it."""


class NbdConnectionError(NbdClientError):
    """Base: the connection is of no more use."""


class NbdRefusedError(NbdConnectionError):
    """The server speaks NBD and said no: no such export, no such context, TLS wanted."""


class NbdProtocolError(NbdConnectionError):
    """The peer broke the NBD protocol: a bug, an attack, or no NBD server at all."""


class NbdDisconnected(NbdConnectionError):  # noqa: N818 - it reads as the event that it is
    """The peer is gone, or went silent in the handshake; nothing is known of requests in flight."""
