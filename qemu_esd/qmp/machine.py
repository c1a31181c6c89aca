"""The machine as a whole: version, name, run state, objects, devices."""

from __future__ import annotations

from typing import Any

from qemu_esd.qmp.session import Session


async def version(session: Session) -> tuple[int, int, int]:
    numbers = (await session.execute("query-version"))["qemu"]
    return (numbers["major"], numbers["minor"], numbers["micro"])


async def run_state(session: Session) -> str:
    """`query-status`: running, paused, inmigrate, postmigrate, finish-migrate, io-error, shutdown …"""
    return str((await session.execute("query-status"))["status"])


async def cont(session: Session) -> None:
    await session.execute("cont")


async def power_down(session: Session) -> None:
    """Press the power button; whether the guest listens is its own affair."""
    await session.execute("system_powerdown")


async def uuid(session: Session) -> str:
    return str((await session.execute("query-uuid"))["UUID"])


async def name(session: Session) -> str:
    return str((await session.execute("query-name")).get("name", ""))


async def current_machine_type(session: Session) -> str:
    """The versioned machine type, e.g. pc-q35-7.2."""
    kind = str(await session.execute("qom-get", path="/machine", property="type"))
    return kind.removesuffix("-machine")


async def machine_types(session: Session) -> frozenset[str]:
    return frozenset(row["name"] for row in await session.execute("query-machines"))


async def memory_size(session: Session) -> int:
    """Bytes of RAM plugged at start."""
    return int((await session.execute("query-memory-size-summary"))["base-memory"])


async def add_object(session: Session, kind: str, id: str, properties: dict[str, Any]) -> None:
    await session.execute_dict("object-add", {"qom-type": kind, "id": id, **properties})


async def delete_object(session: Session, id: str) -> None:
    await session.execute("object-del", id=id)


async def objects(session: Session) -> frozenset[str]:
    """The ids of user-created objects."""
    return frozenset(row["name"] for row in await session.execute("qom-list", path="/objects"))


async def property(session: Session, path: str, name: str) -> Any:
    """A property of the object at `path` (an id or a QOM path)."""
    return await session.execute("qom-get", path=path, property=name)


async def drivers(session: Session) -> frozenset[str]:
    """The block drivers that `blockdev-add` knows, from the schema (never guessed from the version)."""
    schema = await session.execute("query-qmp-schema")
    by_name = {entry["name"]: entry for entry in schema}
    options = by_name[by_name["blockdev-add"]["arg-type"]]
    return frozenset(variant["case"] for variant in options["variants"])


async def has_tls_psk(session: Session) -> bool:
    """Whether this QEMU was built with TLS by pre-shared keys."""
    rows = await session.execute("qom-list-types", implements="tls-creds")
    return any(row["name"] == "tls-creds-psk" for row in rows)
