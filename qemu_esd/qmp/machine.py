"""The machine as a whole: version, identity, run state, objects and their properties."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from qemu_esd.errors import EsdError, QemuError, TimedOutError
from qemu_esd.graph import tls
from qemu_esd.qmp.session import Session

LEAVING_SECONDS, LOOK_SECONDS = 30.0, 0.02


async def version(session: Session) -> tuple[int, int, int]:
    """QEMU's major, minor and micro."""
    numbers = (await session.execute("query-version"))["qemu"]
    return (numbers["major"], numbers["minor"], numbers["micro"])


async def run_state(session: Session) -> str:
    """`query-status`: running, paused, inmigrate, postmigrate, finish-migrate, io-error, shutdown …"""
    return str((await session.execute("query-status"))["status"])


async def run_state_at_rest(session: Session) -> str:
    """The same, once it is not `finish-migrate` any more, which QEMU leaves a moment after it has told a stream's end.

    Raises TimedOutError.
    """
    # It has no event.
    deadline = time.monotonic() + LEAVING_SECONDS
    while (state := await run_state(session)) == "finish-migrate":
        if time.monotonic() > deadline:
            raise TimedOutError("the end of the migration", LEAVING_SECONDS, host=session.host)
        await asyncio.sleep(LOOK_SECONDS)
    return state


async def hears(session: Session) -> None:
    """Returns when it has answered at once, whatever it is busy with: a yank of nothing. Raises as `execute` does."""
    await session.execute_at_once("yank", {"instances": []})


async def cont(session: Session) -> None:
    """Let the guest run. In a QEMU that still waits for a stream this arms its start: never sent there."""
    await session.execute("cont")


async def power_down(session: Session) -> None:
    """Press the power button; whether the guest listens is its own affair."""
    await session.execute("system_powerdown")


async def uuid(session: Session) -> str:
    """The machine's identity, which a migration carries over."""
    return str((await session.execute("query-uuid"))["UUID"])


async def current_machine_type(session: Session) -> str:
    """The versioned machine type, e.g. pc-q35-7.2."""
    kind = str(await session.execute("qom-get", path="/machine", property="type"))
    return kind.removesuffix("-machine")


async def memory_size(session: Session) -> int:
    """Bytes of RAM plugged at start."""
    return int((await session.execute("query-memory-size-summary"))["base-memory"])


async def add_object(session: Session, kind: str, id: str, properties: dict[str, Any]) -> None:
    """`object-add` of the QOM type `kind`. Raises QemuError if there is one of that id."""
    await session.execute_dict("object-add", {"qom-type": kind, "id": id, **properties})


async def delete_object(session: Session, id: str) -> None:
    """`object-del`. Raises QemuError if there is none."""
    await session.execute("object-del", id=id)


async def objects(session: Session) -> frozenset[str]:
    """The ids of user-created objects, among other names in the same folder of the object tree."""
    return frozenset(row["name"] for row in await session.execute("qom-list", path="/objects"))


async def property(session: Session, path: str, name: str) -> Any:
    """A property of the object at `path` (an id or a QOM path)."""
    return await session.execute("qom-get", path=path, property=name)


async def has_tls_psk(session: Session) -> bool:
    """Whether this QEMU was built with TLS by pre-shared keys: credentials are asked for that cannot be made.

    Not by `qom-list-types`, which loads all modules: if the package was upgraded since this QEMU started, they are of
    another build, and QEMU aborts (measured on 7.2 and 10.0).
    """
    try:
        await add_object(session, "tls-creds-psk", "esd-probe", {"endpoint": "client", "dir": tls.NO_FOLDER})
    except QemuError as error:
        return tls.looked_for_key(error.reason)
    raise EsdError(f"the QEMU of {session.label} has made credentials out of nothing", host=session.host)


async def has_iothreads(session: Session) -> bool:
    """Whether devices of this QEMU may be served by threads of their own."""
    return bool(await session.execute("query-iothreads"))
