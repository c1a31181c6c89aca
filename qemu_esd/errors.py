"""Every error a user can meet, grouped by what the caller can do about it.

An error carries *what* failed, on which *host*, and a *hint* that names the next command.
The exit status of the command line is a field of the class, so nobody maps it a second time. ENDINGS says what
each of them means.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ending:
    """What an exit status of the command line tells, and what is to be done then."""

    status: int
    meaning: str
    next_step: str


ENDINGS = (
    Ending(0, "done", "nothing, or what the command names"),
    Ending(
        1,
        "failed; a migration was rolled back, and the guest runs where it ran",
        "mend what the message names, and give the command again",
    ),
    Ending(2, "wrong usage", "see the command's --help; nothing was touched"),
    Ending(3, "refused before anything was touched", "mend what the message names, and give the command again"),
    Ending(
        4,
        "committed but not finished: the guest runs on the target, and the message names the command to go on with",
        "give that command (resume, settle); qemu-esd status tells it again",
    ),
)


class EsdError(Exception):
    """Base of all errors of qemu-esd. `exit_status` as in the contract: 1, 2, 3 or 4."""

    exit_status = 1

    def __init__(self, what: str, *, host: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.host = host
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.host}: {self.what}" if self.host else self.what


class UsageError(EsdError):
    """The words of the command are wrong. Nothing was touched."""

    exit_status = 2


class RefusedError(EsdError):
    """The command is right, the world is not; nothing was touched on any host."""

    exit_status = 3


class HostError(RefusedError):
    """A host cannot be reached, or a program that we need there is missing."""


class HostKeyError(HostError):
    """The host's ssh key is unknown or has changed."""


class CommandFailedError(EsdError):
    """A program on a host ended with an error. `status` is its exit status, `stderr` its last words."""

    def __init__(self, argv: tuple[str, ...], status: int | None, stderr: str, *, host: str | None = None) -> None:
        last = stderr.strip().splitlines()[-1:] or [f"exit status {status}"]
        super().__init__(f"{argv[0]} failed: {last[0]}", host=host)
        self.argv = argv
        self.status = status
        self.stderr = stderr


class QemuError(EsdError):
    """QEMU (or its storage daemon) answered a command with an error. `command` and `reason` are its words."""

    def __init__(self, command: str, reason: str, *, host: str | None = None, hint: str | None = None) -> None:
        super().__init__(f"QEMU refused {command}: {reason}", host=host, hint=hint)
        self.command = command
        self.reason = reason


class LibvirtError(EsdError):
    """libvirt answered a call with an error, or with what cannot be understood. `reason` are its words, `code` is its
    number for the kind of error (VIR_ERR_...), where it was an answer."""

    def __init__(
        self, what: str, reason: str, *, code: int | None = None, host: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(f"libvirt, asked for {what}: {reason}", host=host, hint=hint)
        self.reason = reason
        self.code = code


class DomainBusyError(LibvirtError):
    """libvirt has waited half a minute, in vain, for the end of something else that it does with the domain."""


class QemuGoneError(EsdError):
    """The monitor's peer went away, or never spoke."""


class MonitorBusyError(RefusedError):
    """The QMP socket takes one client at a time, and somebody else is that client."""


class TimedOutError(EsdError):
    """Something that must happen within a bound did not. `seconds` is the bound."""

    def __init__(self, what: str, seconds: float, *, host: str | None = None, hint: str | None = None) -> None:
        super().__init__(f"{what} did not happen within {seconds:g} s", host=host, hint=hint)
        self.seconds = seconds


class RolledBackError(EsdError):
    """The migration failed before the commit; the guest runs where it ran before."""

    exit_status = 1


class UnfinishedError(EsdError):
    """The migration is committed, the guest runs on the target, and something is left to do."""

    exit_status = 4
