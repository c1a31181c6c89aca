"""The library's QMP client, with what a monitor of a QEMU at work asks of it besides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qemu.qmp import Message, QMPClient, Runstate

# Hears every message of a session as it goes over the wire; the word says from whom: "us" or "qemu".
Listener = Callable[[str, dict[str, Any]], None]


class Client(QMPClient):
    """A client that no early message of a QEMU confuses, and that tells `listener` what it sends and gets."""

    def __init__(self, name: str, listener: Listener | None = None) -> None:
        super().__init__(name)
        self._tell = listener

    async def _recv(self) -> Message:
        """The next message; while the session is being set up, the first greeting and then the answer to ours.

        Before the answer to `qmp_capabilities` can come an event, for the migration thread sends its events without
        the lock under which answers are queued; and the greeting once more, if we connect while a storage daemon
        hands its monitor to the thread that serves it. The library takes both for a refusal: a QEMU that is well
        would count as one that is gone.
        """
        message = await super()._recv()
        while self.runstate is Runstate.CONNECTING and self._is_early(message):
            message = await super()._recv()
        return message

    def _is_early(self, message: Message) -> bool:
        return "event" in message or (self._greeting is not None and "QMP" in message)

    def _cb_outbound(self, msg: Message) -> Message:
        if self._tell:
            self._tell("us", dict(msg))
        return super()._cb_outbound(msg)

    def _cb_inbound(self, msg: Message) -> Message:
        if self._tell:
            self._tell("qemu", dict(msg))
        return super()._cb_inbound(msg)
