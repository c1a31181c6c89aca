"""Do something inside another network namespace, from a process that itself stays where it is.

A socket belongs for ever to the namespace it was made in, and a namespace is a property of a *thread*:
so a thread of its own enters the namespace, makes the socket, and ends. (Linux, setns(2); Python has it from 3.12.)
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def call_in(namespace: int, function: Callable[[], T]) -> T:
    """What `function` returns or raises, called inside `namespace`: an open descriptor of a /proc/PID/ns/net.

    Raises OSError without the right to enter (CAP_SYS_ADMIN).
    """

    def enter_and_call() -> T:
        if _libc.setns(namespace, _CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"cannot enter the network namespace: {os.strerror(error)}")
        return function()

    # The pool lives for one call: a thread that has changed its namespace must never be used again.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(enter_and_call).result()


def connect_in(namespace: int, address: str, port: int, seconds: float) -> socket.socket:
    """A connected, non-blocking TCP socket made in `namespace`.

    Blocks at most `seconds`. Raises OSError: refused, timed out, no way there.
    """
    sock = call_in(namespace, lambda: socket.create_connection((address, port), timeout=seconds))
    sock.setblocking(False)
    return sock
