"""The library's QMP client, with what a monitor of a QEMU at work asks of it besides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qemu.qmp import Message, QMPClient, Runstate

# Hears every message of a session as it goes over the wire; the word says from whom: "us" or "qemu".
Listener = Callable[[str, dict[str, Any]], None]


class Client(QMPClient):
    """A client that a QEMU cannot confuse with an early event, and that tells `listener` what it sends and gets."""

    def __init__(self, name: str, listener: Listener | None = None) -> None:
        super().__init__(name)
        self._tell = listener

    async def _recv(self) -> Message:
        """The next message; while the session is being set up, the next that is no event.

        QEMU's migration thread sends its events without the lock under which the answer to `qmp_capabilities` is
        queued, so that one of them can come before it. The library takes it for a refusal: a QEMU that is well
        would count as one that is gone.
        """
        message = await super()._recv()
        while self.runstate is Runstate.CONNECTING and "event" in message:
            message = await super()._recv()
        return message

    def _cb_outbound(self, msg: Message) -> Message:
        if self._tell:
            self._tell("us", dict(msg))
        return super()._cb_outbound(msg)

    def _cb_inbound(self, msg: Message) -> Message:
        if self._tell:
            self._tell("qemu", dict(msg))
        return super()._cb_inbound(msg)
