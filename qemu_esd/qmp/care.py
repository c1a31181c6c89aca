"""Which commands only look, and which of those can end a QEMU all the same. Tables, and one question before asking."""

from __future__ import annotations

import re
from typing import Any

from qemu_esd.errors import RefusedError
from qemu_esd.qmp import jobs
from qemu_esd.qmp.session import Session

# Beside query-* and x-query-*. Whatever is not named changes something, or nobody knows (human-monitor-command).
_LOOKING = frozenset(
    {
        "qom-get",
        "qom-list",
        "qom-list-properties",
        "device-list-properties",
        "trace-event-get-state",
        "x-debug-query-block-graph",
        "x-debug-block-dirty-bitmap-sha256",
    }
)
# It loads all modules: of another build, since the package was upgraded, they abort QEMU (decision 43).
_LOADS_MODULES = "qom-list-types"
# Walks the options of every node: 7.2 dies of that while a block-stream job is concluded and kept (decision 53).
_WALKS_NODES = ("query-named-block-nodes",)
# What these take may be a password or a key.
_SECRET_KEYS = frozenset({"password", "passwd", "secret", "data"})


def only_looks(command: str) -> bool:
    """Whether it changes nothing, of the guest and of what QEMU has."""
    return command.startswith(("query-", "x-query-")) or command in _LOOKING


async def check_harmless(session: Session, command: str) -> None:
    """Raises RefusedError where the command is known to end a QEMU in the state that this one is in."""
    if command == _LOADS_MODULES:
        what = f"{command} loads modules, of which QEMU dies if its package was upgraded since it started"
        raise RefusedError(what, host=session.host, hint="qom-list-properties typename=NAME looks at one type")
    if command in _WALKS_NODES:
        await _check_no_kept_stream(session, command)


async def _check_no_kept_stream(session: Session, command: str) -> None:
    for job in (await jobs.running(session)).values():
        if job.type == "stream" and job.status == "concluded":
            what = f"QEMU dies of {command} while the block-stream job {job.id} is concluded and kept"
            raise RefusedError(what, host=session.host, hint=f"first: job-dismiss id={job.id}")


def without_secrets(value: Any, key: str = "") -> Any:
    """A message without what may be secret in it: for files."""
    if isinstance(value, dict):
        return {name: without_secrets(below, name) for name, below in value.items()}
    if isinstance(value, list):
        return [without_secrets(one, key) for one in value]
    return "***" if key in _SECRET_KEYS and isinstance(value, str) else value


def may_hold_secrets(line: str) -> bool:
    """Whether a typed line is not to be kept in a history."""
    return any(word in _SECRET_KEYS for word in re.split(r"[^a-z-]+", line))
